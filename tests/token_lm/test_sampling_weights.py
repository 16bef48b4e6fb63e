"""How often a clip is drawn: alike, by its length, or as the upstream loaders do, whose redraws take another clip."""

import random
from collections import Counter

import numpy as np
import pytest

from wavmill.pipeline.exports.draws import Contiguous, PoseSimilar, Single

DRAWS = 8_000


def shares_of(clips: list[int], count: int) -> np.ndarray:
    seen = Counter(clips)
    return np.array([seen[i] / len(clips) for i in range(count)])


def upstream_single(pictures: list[list[int]], lengths: list[int], lots: random.Random) -> int:
    """MuseTalk v1: a clip, one of its pictures; the two frames at each end have no window: all is drawn again."""
    while True:
        clip = lots.randrange(len(lengths))
        if lengths[clip] < 12:
            continue
        target = lots.choice(pictures[clip])
        if 2 <= target < lengths[clip] - 2 and any(abs(r - target) > 5 for r in pictures[clip]):
            return clip


def upstream_contiguous(pictures: list[list[int]], last: list[int], lots: random.Random) -> int:
    """Wav2Lip: a clip, a picture and another one; both must begin five in a row, the first within the mel."""
    while True:
        clip = lots.randrange(len(pictures))
        some = pictures[clip]
        if len(some) <= 15:
            continue
        start, wrong = lots.sample(some, 2)
        if any(at + i not in some for at in (start, wrong) for i in range(5)):
            continue
        if 1 <= start <= last[clip]:
            return clip


def pictures_of(lengths: list[int], seed: int) -> tuple[list[list[int]], list[np.ndarray]]:
    """Which frames of each clip have a picture: every clip but the first has gaps."""
    masks = [np.random.default_rng([seed, i]).random(n) > (0.06 if i else -1) for i, n in enumerate(lengths)]
    return [np.flatnonzero(mask).tolist() for mask in masks], masks


@pytest.mark.parametrize("seed", range(2))
def test_upstream_weights_draw_musetalk_v1_s_clips_as_often_as_its_loop_does(seed):
    lengths = [14, 20, 60, 400, 9]
    pictures, masks = pictures_of(lengths, seed)
    lots = random.Random(seed)
    wanted = shares_of([upstream_single(pictures, lengths, lots) for _ in range(DRAWS)], len(lengths))
    sampler = Single(np.array(lengths), seed, weights="upstream", there=masks)
    found = shares_of([sampler(0, n).clip for n in range(DRAWS)], len(lengths))
    assert np.abs(found - wanted).max() < 0.02
    assert np.abs(wanted[:4] - 0.25).max() > 0.04  # which drawing all alike would not be


@pytest.mark.parametrize("seed", range(2))
def test_upstream_weights_draw_wav2lip_s_clips_as_often_as_its_loop_does(seed):
    lengths, fitting = [18, 25, 60, 400, 15], [14, 21, 56, 380, 11]
    pictures, masks = pictures_of(lengths, seed)
    lots = random.Random(seed)
    last = [min(fit - 4, fit - 1) for fit in fitting]
    wanted = shares_of([upstream_contiguous(pictures, last, lots) for _ in range(DRAWS)], len(lengths))
    sampler = Contiguous(np.array(lengths), np.array(fitting), 5, seed, weights="upstream", there=masks, overlap=True)
    found = shares_of([sampler(0, n).clip for n in range(DRAWS)], len(lengths))
    assert np.abs(found - wanted).max() < 0.02
    assert np.abs(wanted[:4] - 0.25).max() > 0.04


def test_without_overlap_a_draw_is_kept_when_the_wrong_frames_are_far_enough_too():
    sampler = Contiguous(np.array([30]), np.array([22]), 5, weights="upstream")
    kept = sum(1 <= a <= 18 and a != b and abs(a - b) >= 5 and b <= 25 for a in range(30) for b in range(30))
    assert sampler.accepted(0) == pytest.approx(kept / (30 * 29))


def test_v1_5_keeps_every_draw_so_its_clips_are_drawn_alike_whatever_their_length():
    lengths = np.array([50, 60, 500])
    points = [np.random.default_rng(i).integers(0, 256, (n, 68, 2)) for i, n in enumerate(lengths)]
    sampler = PoseSimilar(lengths, points, length=5, weights="upstream")
    assert [sampler.accepted(clip) for clip in range(3)] == [1.0, 1.0, 1.0]
    assert np.diff([0, *sampler.ends]).tolist() == [sampler.ends[0]] * 3


def test_the_weights_of_very_many_clips_have_a_sum():
    sampler = Single(np.full(20_000, 14), weights="upstream")
    assert sampler.ends[-1] > 0 and (np.diff(sampler.ends) > 0).all()
    assert 0 <= sampler(0, 1).clip < 100_000


def test_other_weights_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="uniform, length, upstream"):
        Single(np.array([20]), weights="clip")
