"""MuseTalk's windows: the steps of sound that belong to each frame of video."""

from fractions import Fraction
from functools import partial
from math import ceil, floor
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from wavmill.pipeline.containers.video import frames_in
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.rows import ragged
from wavmill.pipeline.windows.per_frame import ON_TIME, PerFrame

STEPS_HZ = 50  # of Whisper's encoder; two to a frame at 25 fps


class MuseTalk(PerFrame):
    """For every frame of video the ``left`` and ``right`` neighbours' steps and its own, two of each.

    feature (T, ...) at 50 Hz  ->  window (frames, 2 * (left + right + 1)) int32, positions, -1 = nothing there

    Window i begins 2 * left steps before step floor(50 i / fps), whatever fps is. Where it leaves the clip, ``edge``
    repeats the first or last step (clamp, MuseTalk v1), holds zeros (zero, v1.5), or the frame has no window: a row of
    -1 (reject). ``sparse`` takes the two steps that end where each neighbour begins. There is a window for every frame
    of the video with ``fps: from_video``, otherwise for every whole frame that fits in the sound.

    ``compat_float`` has the numbers of upstream's float arithmetic, flaws included: with ``edge: clamp`` the centres
    and the count of v1's ``feature2chunks`` (two windows more than there are frames), with ``edge: zero`` those of
    v1.5's ``get_whisper_chunk`` (29.97 fps taken as 29, windows too early below 25 fps, a frame lost at some lengths),
    which counts frames by the sound alone: as many windows as its seconds have frames at int(fps), whatever the video.
    """

    kind: Literal["musetalk"] = "musetalk"
    left: int = Field(2, ge=0, le=100)
    right: int = Field(2, ge=0, le=100)
    edge: Literal["clamp", "zero", "reject"] = "clamp"
    sparse: bool = False
    needs_hz: ClassVar[float] = STEPS_HZ

    @model_validator(mode="after")
    def _upstream_has_it(self) -> "MuseTalk":
        if self.compat_float and self.edge == "reject":
            raise ValueError("compat_float is upstream's arithmetic, whose edges are clamp (v1) or zero (v1.5)")
        if self.compat_float and self.edge == "zero" and self.sparse:
            raise ValueError("compat_float with edge zero is v1.5, which has no sparse windows")
        return self

    def recipe(self) -> dict[str, Any]:
        """Of version 2 are the windows of v1.5's count that were made by the frames of the video before."""
        by_sound = self.compat_float and self.edge == "zero" and self.fps == "from_video"
        return {**super().recipe(), **({"version": 2} if by_sound else {})}

    @property
    def steps(self) -> int:
        """Of one window."""
        return 2 * (self.left + self.right + 1)

    @property
    def type(self) -> pa.DataType:
        return ragged(np.int32, self.steps)

    def positions(
        self, there: int, seconds: float, fps: Fraction, frames: int | None = None, late_s: Fraction = ON_TIME
    ) -> np.ndarray | Reject:
        """The windows of a clip of so many steps and seconds, (frames, self.steps) int32."""
        steps = there
        if self.compat_float and self.edge == "zero":
            return self._of_v1_5(steps, seconds, int(fps))
        begins = partial(_upstream, fps=float(fps)) if self.compat_float else partial(_exactly, fps=fps, late_s=late_s)
        if frames is None:
            frames = chunks(steps, float(fps)) if self.compat_float else frames_in(seconds, fps)
        offsets = np.arange(self.steps) - 2 * self.left
        if self.sparse:
            near = [[begins(i + dt) for dt in range(-self.left, self.right + 1)] for i in range(frames)]
            ends = np.array(near, np.int64).reshape(frames, self.left + self.right + 1, 1)
            pairs = ends + np.array([-1, 0])
            if self.edge == "clamp":  # upstream's only edge: one that leaves the clip takes the nearest step twice
                pairs = np.where((ends < 1) | (ends > steps - 1), ends, pairs)
            made = pairs.reshape(frames, self.steps)
        else:
            made = np.array([begins(i) for i in range(frames)], np.int64).reshape(-1, 1) + offsets
        beyond = (made < 0) | (made >= steps)
        if self.edge == "clamp":
            made = np.clip(made, 0, steps - 1)
        elif self.edge == "zero":
            made[beyond] = -1
        else:
            made[beyond.any(axis=1)] = -1
        windows: np.ndarray = made.astype(np.int32)
        return windows

    def _of_v1_5(self, steps: int, seconds: float, fps: int) -> np.ndarray | Reject:
        per_frame = STEPS_HZ / fps
        steps, frames = min(steps, floor(seconds * STEPS_HZ)), floor(seconds * fps)
        early = ceil(per_frame) * self.left  # zeros that upstream puts in front; at most as many as there are steps
        zeros, behind = min(early, steps), min(ceil(per_frame) * 3 * self.right, steps)
        starts = np.array([floor(i * per_frame) for i in range(frames)], np.int64)
        if frames and starts[-1] + self.steps > zeros + steps + behind:
            return Reject("too_short", f"{steps} steps: the window of its last frame ends behind upstream's zeros")
        made = starts[:, None] + np.arange(self.steps) - zeros
        return np.where((made >= 0) & (made < steps), made, -1).astype(np.int32)


def _exactly(frame: int, fps: Fraction, late_s: Fraction) -> int:
    """The step in which a frame begins."""
    return floor((frame / fps + late_s) * STEPS_HZ)


def _upstream(frame: int, fps: float) -> int:
    """As v1 has it: a float, rounded towards zero."""
    return int(frame * STEPS_HZ / fps)


def chunks(steps: int, fps: float) -> int:
    """How many windows v1's ``feature2chunks`` makes: it stops behind the first that begins beyond the last step."""
    per_frame, i = STEPS_HZ / fps, int(steps * fps / STEPS_HZ)
    while int(i * per_frame) > steps and i:
        i -= 1
    while int(i * per_frame) <= steps:
        i += 1
    return i + 1
