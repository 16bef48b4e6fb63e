"""Which frames of which clip a sample is: a function of (seed, epoch, number), and of nothing that happened before.

The strategies are those of three projects' loaders, by index arithmetic alone. What those draw again until it fits is
drawn here from what fits; a clip in which nothing fits is listed in ``too_short``, and never drawn.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

By = Literal["clip", "length"]


class Drawn(NamedTuple):
    """Frames of one clip: of those that are shown, and of those that are shown beside them."""

    clip: int
    frames: np.ndarray  # (T,) int64
    references: np.ndarray  # (T,) int64


class Strategy:
    """What the strategies have in common: clips that are long enough, drawn uniformly or as often as they are long.

    frames (clips,) int64 of video. An epoch has ``per_epoch`` samples, as many as there are clips unless it is said.
    """

    def __init__(self, frames: np.ndarray, least: int, seed: int, by: By, per_epoch: int | None) -> None:
        self.frames, self.seed = frames, seed
        self.usable = np.flatnonzero(frames >= least)
        self.too_short = np.flatnonzero(frames < least)
        if not len(self.usable):
            raise ValueError(f"no clip has {least} frames, which this strategy takes; the longest has {max(frames)}")
        weights = frames[self.usable] if by == "length" else np.ones(len(self.usable), np.int64)
        self.ends = np.cumsum(weights)
        self.per_epoch = len(self.usable) if per_epoch is None else per_epoch

    def lots(self, epoch: int, number: int) -> np.random.Generator:
        """The lots of one sample."""
        return np.random.default_rng([self.seed, epoch, number])

    def clip(self, lots: np.random.Generator) -> int:
        return int(self.usable[np.searchsorted(self.ends, lots.integers(self.ends[-1]), side="right")])

    def __call__(self, epoch: int, number: int) -> Drawn:
        raise NotImplementedError


class Single(Strategy):
    """MuseTalk v1: one frame, and a reference more than ``apart`` frames away; the outermost are never targets."""

    def __init__(
        self,
        frames: np.ndarray,
        seed: int = 0,
        by: By = "clip",
        per_epoch: int | None = None,
        apart: int = 5,
        edge: int = 2,
    ) -> None:
        super().__init__(frames, 2 * max(apart, edge) + 2, seed, by, per_epoch)
        self.apart, self.edge = apart, edge

    def __call__(self, epoch: int, number: int) -> Drawn:
        lots = self.lots(epoch, number)
        clip = self.clip(lots)
        count = int(self.frames[clip])
        target = int(lots.integers(self.edge, count - self.edge))
        reference = drawn_outside(lots, 0, count, target - self.apart, target + self.apart + 1)
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
        by: By = "clip",
        per_epoch: int | None = None,
        overlap: bool = False,
    ) -> None:
        self.length, self.overlap = length, overlap
        self.last = np.minimum(frames - length, np.minimum(fitting - length + 1, fitting - 1))
        long_enough = (frames > 3 * length) & (self.last >= 1)
        super().__init__(np.where(long_enough, frames, 0), 1, seed, by, per_epoch)
        self.frames = frames

    def starts(self, clip: int) -> range:
        """The frames of a clip that may begin a sample."""
        return range(1, int(self.last[clip]) + 1)

    def __call__(self, epoch: int, number: int) -> Drawn:
        lots = self.lots(epoch, number)
        clip = self.clip(lots)
        start = int(lots.integers(1, self.last[clip] + 1))
        near = 0 if self.overlap else self.length - 1
        wrong = drawn_outside(lots, 0, int(self.frames[clip]) - self.length + 1, start - near, start + near + 1)
        return Drawn(clip, start + np.arange(self.length), wrong + np.arange(self.length))


class PoseSimilar(Strategy):
    """MuseTalk v1.5: ``length`` frames in a row, for each a reference of like pose with another mouth.

    landmarks (n, 68, 2) of each clip, of a face in a square of 256. Upstream's fallback, where no frame is both, may
    draw the frame itself; here it draws one ``apart`` to 5 * length frames away, or the farthest there is.
    """

    def __init__(
        self,
        frames: np.ndarray,
        landmarks: Sequence[np.ndarray],
        length: int = 16,
        seed: int = 0,
        by: By = "clip",
        per_epoch: int | None = None,
        apart: int = 5,
    ) -> None:
        super().__init__(frames, 10 * length, seed, by, per_epoch)
        wrong = [clip for clip in self.usable.tolist() if landmarks[clip].shape != (frames[clip], 68, 2)]
        if wrong:
            raise ValueError(f"clip {wrong[0]} has landmarks {landmarks[wrong[0]].shape} and {frames[wrong[0]]} frames")
        self.landmarks, self.length, self.apart = landmarks, length, apart

    def __call__(self, epoch: int, number: int) -> Drawn:
        lots = self.lots(epoch, number)
        clip = self.clip(lots)
        count = int(self.frames[clip])
        frames = int(lots.integers(count - self.length + 1)) + np.arange(self.length)
        return Drawn(clip, frames, np.array([self._reference(lots, clip, frame, count) for frame in frames.tolist()]))

    def _reference(self, lots: np.random.Generator, clip: int, frame: int, count: int) -> int:
        both = similar_pose_other_mouth(self.landmarks[clip], frame)
        if len(far := both[np.abs(both - frame) >= self.apart]):
            return int(lots.choice(far))
        low, high = max(0, frame - 5 * self.length), min(count, frame + 5 * self.length + 1)
        return drawn_outside(lots, low, high, frame - self.apart + 1, frame + self.apart)


JAW, MOUTH = slice(0, 16), slice(60, 67)  # as upstream cuts them, which leaves out the last point of each
SHARE = 0.51


def similar_pose_other_mouth(landmarks: np.ndarray, frame: int) -> np.ndarray:
    """The frames whose jaw is among the nearest 51 % and whose inner lips are among the farthest 51 %, rising."""
    take = int(SHARE * len(landmarks))
    jaw, mouth = (
        np.linalg.norm(landmarks[:, some] - landmarks[frame, some].astype(float), axis=2).mean(1)
        for some in (JAW, MOUTH)
    )
    near = np.argsort(jaw, kind="stable")
    near = near[near != frame][: take - 1]
    return np.intersect1d(near, np.argsort(-mouth, kind="stable")[:take])


def drawn_outside(lots: np.random.Generator, low: int, high: int, first: int, end: int) -> int:
    """One of [low, high) that is not in [first, end), uniformly. ValueError when there is none."""
    before, behind = max(0, min(first, high) - low), max(0, high - max(end, low))
    if before + behind == 0:
        raise ValueError(f"nothing of {low} to {high - 1} lies outside of {first} to {end - 1}")
    drawn = int(lots.integers(before + behind))
    return low + drawn if drawn < before else max(end, low) + drawn - before
