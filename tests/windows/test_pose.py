"""MuseTalk v1.5's references: a pose is the face within its own box, wherever the head is and however large.

Upstream's preparation and its two sets of frames are written out here once more, step by step, as the reference.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.exports.draws import PoseSimilar, similar_pose_other_mouth
from wavmill.pipeline.sources.faces import landmarks_of

WIDTH, HEIGHT = 640, 480


def clip_of(heads: np.ndarray, faces: np.ndarray) -> dict:
    """The JSON of a clip: landmarks (n, 68, 2) and boxes (n, 4) as the preprocessing writes them, in whole pixels."""
    corner = faces[0]
    return {
        "frames": len(heads), "video_size": [HEIGHT, WIDTH], "isvalid": True,
        "face_size": [int(corner[3] - corner[1]), int(corner[2] - corner[0])],
        "face_list": faces.astype(int).tolist(), "landmark_list": heads.astype(int).tolist(),
    }  # fmt: skip


def moving(seed: int, frames: int, zoom: bool, leaves: bool, talks: bool = True) -> dict:
    """A head that wanders and turns, comes nearer if it zooms, and ends half outside the picture if it leaves."""
    lots = np.random.default_rng(seed)
    t = np.linspace(0, 1, frames)
    size = 120 * (1 + (2 * t if zoom else 0 * t))
    at = np.stack([200 + 60 * np.sin(5 * t), 150 + 40 * np.cos(3 * t)], 1)
    if leaves:
        at[:, 0] = np.linspace(200, -60, frames)
    shape = lots.uniform(0, 1, (68, 2))
    heads = at[:, None] + size[:, None, None] * (shape + 0.1 * lots.normal(size=(frames, 1, 2)))
    if talks:
        heads[:, 60:67, 1] += size[:, None] * lots.uniform(0, 0.3, (frames, 1))
    around = lots.integers(-12, 12, (frames, 4))  # a detector's box, now inside the landmarks', now outside
    boxes = np.concatenate([heads.min(1), heads.max(1)], 1) + around
    return clip_of(heads, boxes)


def upstream_landmarks(clip: dict) -> list[list[tuple[float, float]]]:
    prepared = []
    for (left, top, right, bottom), points in zip(clip["face_list"], clip["landmark_list"], strict=True):
        xs, ys = [int(x) for x, _ in points], [int(y) for _, y in points]
        x0, y0 = max(0, min(int(left), min(xs))), max(0, min(int(top), min(ys)))
        x1, y1 = max(int(right), max(xs)), max(int(bottom), max(ys))
        prepared.append([((x - x0) / (x1 - x0) * 256, (y - y0) / (y1 - y0) * 256) for x, y in points])
    return prepared


def upstream_sets(prepared: list, frame: int, ratio: float = 0.51) -> tuple[list[int], list[int]]:
    def order(first: int, last: int, sign: int) -> list[int]:
        means = [
            sum(math.dist(a, b) for a, b in zip(one[first:last], prepared[frame][first:last], strict=True))
            for one in prepared
        ]
        return sorted(range(len(means)), key=lambda i: sign * means[i])

    count = int(ratio * len(prepared))
    return order(0, 16, 1)[1 : count + 1], order(60, 67, -1)[:count]


CLIPS = st.builds(moving, st.integers(0, 999), st.integers(10, 60), st.booleans(), st.booleans())


@settings(deadline=None, max_examples=40)
@given(CLIPS, st.data())
def test_landmarks_and_references_are_those_of_upstream_for_heads_that_move_zoom_and_leave(clip, data):
    wanted, found = upstream_landmarks(clip), landmarks_of(clip)
    assert np.allclose(found, wanted, rtol=0, atol=1e-9)
    frame = data.draw(st.integers(0, clip["frames"] - 1))
    near, far = upstream_sets(wanted, frame)
    assert {*similar_pose_other_mouth(found, frame).tolist()} == {*near} & {*far}


@pytest.mark.parametrize("step", [(3, 0), (0, 3), (-1, 2)])
def test_where_a_rigid_face_is_in_the_picture_is_no_part_of_its_pose(step):
    face = np.random.default_rng(0).integers(0, 150, (68, 2))
    heads = face + (200, 200) + np.arange(50)[:, None, None] * np.array(step)
    points = landmarks_of(clip_of(heads, np.concatenate([heads.min(1), heads.max(1)], 1)))
    assert np.linalg.norm(points - points[0], axis=2).max() == 0


def test_how_large_a_rigid_face_is_is_no_part_of_its_pose():
    face = np.random.default_rng(0).integers(0, 50, (68, 2))
    heads = 200 + face * np.arange(1, 6)[:, None, None]
    points = landmarks_of(clip_of(heads, np.concatenate([heads.min(1), heads.max(1)], 1)))
    assert np.linalg.norm(points - points[0], axis=2).max() < 1e-9


@pytest.mark.parametrize("frames", [2, 10, 51, 100])
def test_so_many_neighbours_are_near_without_the_frame_itself(frames):
    """Where the mouths leave all frames to choose from: as many as upstream's sorted[1 : k + 1] has."""
    points = np.zeros((frames, 68, 2))
    points[:, :16] = np.arange(frames)[:, None, None]
    for frame in (0, frames // 2, frames - 1):
        near = sorted(range(frames), key=lambda i: abs(i - frame))[1 : int(0.51 * frames) + 1]
        points[:, 60:67] = 0.0
        points[near, 60:67] = 9.0
        found = similar_pose_other_mouth(points, frame)
        assert len(found) == int(0.51 * frames) and frame not in found


def test_a_face_that_has_left_the_picture_has_no_pose_and_is_drawn_only_when_nothing_else_can_be():
    clip = moving(0, 60, zoom=False, leaves=False)
    for frame in range(30, 40):
        clip["face_list"][frame] = [-90, 10, -20, 80]
        clip["landmark_list"][frame] = [[-80, 20]] * 68
    points = landmarks_of(clip)
    assert np.isnan(points[30:40]).all() and np.isfinite(np.delete(points, slice(30, 40), 0)).all()
    for frame in (0, 29, 45):
        found = similar_pose_other_mouth(points, frame)
        assert len(found) and not {*found.tolist()} & {*range(30, 40)}
    assert not len(similar_pose_other_mouth(points, 35))
    sampler = PoseSimilar(np.array([60]), [points], length=3)
    assert all(np.abs(drawn.references - drawn.frames).min() >= 5 for drawn in (sampler(0, n) for n in range(30)))


@pytest.mark.parametrize("lists", [{"face_list": [[0, 0, 9, 9]] * 9}, {"landmark_list": [[[1, 2]] * 60] * 10}])
def test_lists_that_do_not_belong_together_are_refused(lists):
    with pytest.raises(ValueError, match="should be"):
        landmarks_of({**moving(1, 10, zoom=False, leaves=False), **lists})
