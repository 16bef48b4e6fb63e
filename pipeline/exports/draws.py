"""Which frames of which clip a sample is: a function of (seed, epoch, number), and of nothing that happened before.

The strategies are those of three projects' loaders, by index arithmetic alone. What those draw again until it fits is
drawn here from what fits; a clip in which nothing fits is listed in ``too_short``, and never drawn.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Weights = Literal["uniform", "length", "upstream"]


class Drawn(NamedTuple):
    """Frames of one clip: of those that are shown, and of those that are shown beside them."""

    clip: int
    frames: np.ndarray  # (T,) int64
    references: np.ndarray  # (T,) int64


class Strategy:
    """What the strategies have in common. ``weights`` says how often a clip is drawn:

    uniform   every usable clip as often as any other
    length    in proportion to its frames
    upstream  as the project's own loader does, which picks a clip, then a start anywhere in it, and picks another clip
              when that start does not do: in proportion to ``accepted``, the share of a clip's draws that are kept.
              Long clips come more often, as less of them lies near an end.

    frames (clips,) int64 of video; ``there``, of each clip (frames,) bool: which of them have a picture, all if it is
    not said. An epoch has ``per_epoch`` samples, as many as there are clips to draw from unless it is said.
    """

    takes: str  # what a clip must have, for the error that none has it

    def __init__(
        self, frames: np.ndarray, there: Sequence[np.ndarray] | None, seed: int, weights: Weights, per_epoch: int | None
    ) -> None:
        if weights not in get_args(Weights):
            raise ValueError(f"weights is {weights!r}; it should be one of {', '.join(get_args(Weights))}")
        self.frames, self.there, self.seed = frames, there, seed
        if wrong := [clip for clip, mask in enumerate(there or ()) if len(mask) != frames[clip]]:
            raise ValueError(f"clip {wrong[0]} has {frames[wrong[0]]} frames, and there is said of {len(there or ())}")
        good = np.array([len(self.targets(clip)) > 0 for clip in range(len(frames))], bool)
        self.usable, self.too_short = np.flatnonzero(good), np.flatnonzero(~good)
        if not len(self.usable):
            raise ValueError(f"no clip has {self.takes}; the longest has {max(frames, default=0)} frames")
        self.ends = np.cumsum(self._counts(weights))
        self.per_epoch = len(self.usable) if per_epoch is None else per_epoch

    def _counts(self, weights: Weights) -> np.ndarray:
        """The usable clips' weights as whole numbers, (usable,) int64."""
        if weights == "uniform":
            return np.ones(len(self.usable), np.int64)
        if weights == "length":
            return self.frames[self.usable]
        shares = np.array([self.accepted(clip) for clip in self.usable.tolist()])
        most = (1 << 62) // len(shares)  # so that their sum is an int64
        return np.maximum(1, (shares * most).astype(np.int64))

    def accepted(self, clip: int) -> float:
        """The share of upstream's draws within a usable clip that it keeps, in (0, 1]: here, a start of any picture."""
        return len(self.targets(clip)) / len(self.present(clip))

    def targets(self, clip: int) -> np.ndarray:
        """The frames of a clip that may begin a sample, rising; none when it is too short."""
        raise NotImplementedError

    def present(self, clip: int) -> np.ndarray:
        """The frames of a clip that have a picture, rising."""
        return np.arange(self.frames[clip]) if self.there is None else np.flatnonzero(self.there[clip])

    def rows(self, clip: int, length: int) -> np.ndarray:
        """The frames from which on so many in a row have a picture, rising."""
        present = self.present(clip)
        ends = present[length - 1 :]
        starts = present[: len(ends)]
        result: np.ndarray = starts[ends - starts == length - 1]
        return result

    def drawn(self, epoch: int, number: int) -> tuple[np.random.Generator, int, int]:
        """The lots of one sample, its clip and its first frame."""
        lots = np.random.default_rng([self.seed, epoch, number])
        clip = int(self.usable[np.searchsorted(self.ends, lots.integers(self.ends[-1]), side="right")])
        return lots, clip, int(lots.choice(self.targets(clip)))

    def __call__(self, epoch: int, number: int) -> Drawn:
        raise NotImplementedError


class Single(Strategy):
    """MuseTalk v1: one frame, and a reference more than ``apart`` frames away; the outermost are never targets.

    ``edges`` (clips, 2): how many frames at each end have no window, when that is more than ``edge`` (``Clips.edges``).
    """

    def __init__(
        self,
        frames: np.ndarray,
        seed: int = 0,
        weights: Weights = "uniform",
        per_epoch: int | None = None,
        there: Sequence[np.ndarray] | None = None,
        edges: np.ndarray | None = None,
        apart: int = 5,
        edge: int = 2,
    ) -> None:
        self.apart, self.edges = apart, np.maximum(edge, np.zeros((len(frames), 2), int) if edges is None else edges)
        self.least = 2 * max(apart, edge) + 2  # so that every target has a reference, as upstream wants it
        self.takes = f"{self.least} frames"
        super().__init__(frames, there, seed, weights, per_epoch)

    def targets(self, clip: int) -> np.ndarray:
        if self.frames[clip] < self.least:
            return np.arange(0)
        present, (first, last) = self.present(clip), self.edges[clip]
        inside = present[(present >= first) & (present < self.frames[clip] - last)]
        result: np.ndarray = inside[far_from(inside, present, self.apart)]
        return result

    def __call__(self, epoch: int, number: int) -> Drawn:
        lots, clip, target = self.drawn(epoch, number)
        present = self.present(clip)
        reference = lots.choice(present[np.abs(present - target) > self.apart])
        return Drawn(clip, np.array([target]), np.array([reference]))


class Contiguous(Strategy):
    """Wav2Lip: ``length`` frames in a row, and as many wrong ones, which do not overlap them unless ``overlap``.

    ``fitting`` (clips,) of each clip the windows that end within its mel: the windows of the sample's frames, each
    taken one frame early as upstream does, must be among them. So frame 0 never begins a sample.
    """

    def __init__(
        self,
        frames: np.ndarray,
        fitting: np.ndarray,
        length: int = 5,
        seed: int = 0,
        weights: Weights = "uniform",
        per_epoch: int | None = None,
        there: Sequence[np.ndarray] | None = None,
        overlap: bool = False,
    ) -> None:
        self.length, self.near = length, 0 if overlap else length - 1
        self.last = np.minimum(fitting - length + 1, fitting - 1)
        self.takes = f"more than {3 * length} frames with a mel for each"
        super().__init__(frames, there, seed, weights, per_epoch)

    def targets(self, clip: int) -> np.ndarray:
        if self.frames[clip] <= 3 * self.length:
            return np.arange(0)
        rows = self.rows(clip, self.length)
        inside = rows[(rows >= 1) & (rows <= self.last[clip])]
        result: np.ndarray = inside[far_from(inside, rows, self.near)]
        return result

    def accepted(self, clip: int) -> float:
        """Upstream draws a start and another picture for the wrong frames; both must do."""
        pictures, rows, targets = len(self.present(clip)), self.rows(clip, self.length), self.targets(clip)
        before = np.searchsorted(rows, targets - self.near, side="left")
        behind = len(rows) - np.searchsorted(rows, targets + self.near, side="right")
        return float((before + behind).sum()) / (pictures * (pictures - 1))

    def __call__(self, epoch: int, number: int) -> Drawn:
        lots, clip, start = self.drawn(epoch, number)
        rows = self.rows(clip, self.length)
        wrong = lots.choice(rows[np.abs(rows - start) > self.near])
        return Drawn(clip, start + np.arange(self.length), wrong + np.arange(self.length))


class PoseSimilar(Strategy):
    """MuseTalk v1.5: ``length`` frames in a row, for each a reference of like pose with another mouth.

    landmarks (n, 68, 2) of each clip, within the face of their own frame, scaled to a square of 256 (``landmarks_of``);
    NaN where a frame has no face. Upstream's fallback, where no frame is both, may draw the frame itself; here it
    draws one at least ``apart`` and at most 5 * length or ``apart`` frames away.
    """

    def __init__(
        self,
        frames: np.ndarray,
        landmarks: Sequence[np.ndarray],
        length: int = 16,
        seed: int = 0,
        weights: Weights = "uniform",
        per_epoch: int | None = None,
        there: Sequence[np.ndarray] | None = None,
        apart: int = 5,
    ) -> None:
        self.landmarks, self.length, self.apart = landmarks, length, apart
        self.takes = f"{10 * length} frames"
        super().__init__(frames, there, seed, weights, per_epoch)
        if wrong := [i for i in self.usable.tolist() if landmarks[i].shape != (frames[i], 68, 2)]:
            raise ValueError(f"clip {wrong[0]} has landmarks {landmarks[wrong[0]].shape} and {frames[wrong[0]]} frames")

    def targets(self, clip: int) -> np.ndarray:
        if self.frames[clip] < 10 * self.length:
            return np.arange(0)
        present, rows = self.present(clip), self.rows(clip, self.length)
        alone = np.setdiff1d(present, present[far_from(present, present, self.apart - 1)])
        return rows[[not np.isin(row + np.arange(self.length), alone).any() for row in rows]]

    def accepted(self, clip: int) -> float:
        """Upstream draws among the starts that leave room for the sample, so without gaps it keeps every one."""
        return len(self.targets(clip)) / (int(self.frames[clip]) - self.length + 1)

    def __call__(self, epoch: int, number: int) -> Drawn:
        lots, clip, start = self.drawn(epoch, number)
        frames, present = start + np.arange(self.length), self.present(clip)
        return Drawn(clip, frames, np.array([self._reference(lots, clip, frame, present) for frame in frames.tolist()]))

    def _reference(self, lots: np.random.Generator, clip: int, frame: int, present: np.ndarray) -> int:
        away = np.abs(present - frame)
        far = present[away >= self.apart]
        both = np.intersect1d(similar_pose_other_mouth(self.landmarks[clip], frame), far)
        if not len(both):
            both = present[(away >= self.apart) & (away <= max(5 * self.length, self.apart))]
        return int(lots.choice(both if len(both) else far))


def far_from(some: np.ndarray, others: np.ndarray, near: int) -> np.ndarray:
    """Of each of some frames whether one of the others, which rise, is more than ``near`` away."""
    if not len(others):
        return np.zeros(len(some), bool)
    result: np.ndarray = (some - others[0] > near) | (others[-1] - some > near)
    return result


JAW, MOUTH = slice(0, 16), slice(60, 67)  # as upstream cuts them, which leaves out the last point of each
SHARE = 0.51


def similar_pose_other_mouth(landmarks: np.ndarray, frame: int) -> np.ndarray:
    """The other frames whose jaw is among the nearest 51 % and whose inner lips are among the farthest 51 %, rising.

    landmarks (n, 68, 2), as ``landmarks_of`` gives them. Both shares are of all n frames, int(0.51 * n); the nearest
    are counted without the frame itself. Frames that are NaN are neither near nor far.
    """
    take = int(SHARE * len(landmarks))
    jaw, mouth = (
        np.linalg.norm(landmarks[:, some] - landmarks[frame, some].astype(float), axis=2).mean(1)
        for some in (JAW, MOUTH)
    )
    near = np.argsort(jaw, kind="stable")
    near = near[(near != frame) & np.isfinite(jaw[near])][:take]
    far = np.argsort(-mouth, kind="stable")
    return np.intersect1d(near, far[np.isfinite(mouth[far])][:take])
