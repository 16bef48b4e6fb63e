"""Wav2Lip's windows: the mel frames that belong to a few frames of video."""

from fractions import Fraction
from math import ceil, floor
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from wavmill.pipeline.containers.video import frames_in
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.rows import ragged
from wavmill.pipeline.windows.per_frame import ON_TIME, PerFrame

MELS_HZ = 80  # 16 kHz by a hop of 200


class Wav2Lip(PerFrame):
    """For every frame of video the mel that SyncNet compares with the ``frames`` frames from there on.

    feature (M, ...) at 80 Hz  ->  window (frames of the video, S) int32, positions, S = ceil(16 / 5 * frames)

    Window i begins at floor(80 i / fps). Where that leaves fewer than S, it is the last S of the clip, as in upstream's
    inference, which ends there and so cuts the video short; here every frame has a window. ``compat_float`` has
    upstream's numbers, int(i * (80. / fps)), and its count when fps is a number.
    """

    kind: Literal["wav2lip"] = "wav2lip"
    frames: int = Field(5, ge=1, le=1000)  # syncnet_T
    needs_hz: ClassVar[float] = MELS_HZ
    made_shorter_by: ClassVar[str] = "lower window.frames"

    @property
    def mels(self) -> int:
        """Of one window: 16 for 5 frames, 52 for 16."""
        return mels_of(self.frames)

    @property
    def type(self) -> pa.DataType:
        return ragged(np.int32, self.mels)

    def positions(
        self, there: int, seconds: float, fps: Fraction, frames: int | None = None, late_s: Fraction = ON_TIME
    ) -> np.ndarray | Reject:
        """The windows of a clip of so many mel frames and seconds, (frames, self.mels) int32."""
        if there < self.mels:
            return Reject("too_short", f"{there} mel frames; one window takes {self.mels}")
        if frames is None:
            frames = chunks(there, float(fps), self.mels) if self.compat_float else frames_in(seconds, fps)
        if self.compat_float:
            starts = np.array([int(i * (MELS_HZ / float(fps))) for i in range(frames)], np.int64)
        else:
            starts = np.array([floor((i / fps + late_s) * MELS_HZ) for i in range(frames)], np.int64)
        return (np.minimum(starts, there - self.mels)[:, None] + np.arange(self.mels)).astype(np.int32)

    def fitting(self, there: int, frames: int, fps: Fraction, late_s: Fraction = ON_TIME) -> int:
        """How many of the first windows of a clip of so many mel frames end within it, and so begin at their frame.

        They cannot be told by the positions: where the last of them ends exactly with the mel, those behind it, which
        are moved back to end there, too, are the same.
        """
        last = there - self.mels
        if last < 0:
            return 0
        if self.compat_float:
            starts = (np.arange(frames) * (MELS_HZ / float(fps))).astype(np.int64)
            return int((starts <= last).sum())
        return min(frames, ceil((Fraction(last + 1, MELS_HZ) - late_s) * fps))  # floor((i / fps + late_s) * 80) <= last


def mels_of(frames: int) -> int:
    """ceil(16 / 5 * frames): the mel frames that last as long as so many frames of video at 25 fps."""
    return -(-16 * frames // 5)


def start_of(frame: int) -> int:
    """Where the mel of a frame of video begins, at 25 fps: floor(80 i / 25)."""
    return 16 * frame // 5


def chunks(mels: int, fps: float, window: int = 16) -> int:
    """How many windows upstream's inference makes: it stops at the first that would end beyond the mel."""
    each, i = MELS_HZ / fps, 0
    while int(i * each) + window <= mels:
        i += 1
    return i + 1
