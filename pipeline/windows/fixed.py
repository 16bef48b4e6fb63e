"""Windows of one length, a fixed stride apart."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from wavmill.pipeline.contracts import Window
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.rows import ragged


class Fixed(Window):
    """Windows of one length, every ``stride_frames``.

    T frames or tokens  ->  window (W, length_frames) int32: positions in that column, -1 = nothing there.

    ``tail: drop`` leaves out what does not fill a window, W = max(0, (T - length) // stride + 1);
    ``tail: pad`` fills the last one up with -1, so that every frame is in a window (when stride <= length).
    """

    kind: Literal["fixed"] = "fixed"
    over: Literal["auto", "token", "feature"] = "auto"
    length_frames: int = Field(ge=1, le=1_000_000)
    stride_frames: int = Field(ge=1, le=1_000_000)
    tail: Literal["drop", "pad"] = "drop"
    made_shorter_by: ClassVar[str] = "lower window.length_frames, or set window.tail to pad"

    @property
    def reads(self) -> str:
        return self.over

    def over_column(self, column: str) -> "Fixed":
        return self.model_copy(update={"over": column})

    def windows_hz(self, frames_hz: float) -> float:
        return frames_hz / self.stride_frames

    @property
    def type(self) -> pa.DataType:
        return ragged(np.int32, self.length_frames)

    def open(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray | Reject]]:
        return lambda clips: [self.positions(len(clip)) for clip in clips]

    def positions(self, frames: int) -> np.ndarray:
        """The windows over ``frames`` frames, (W, length_frames) int32."""
        length, stride = self.length_frames, self.stride_frames
        made = np.arange(self.count(frames), dtype=np.int32)[:, None] * stride + np.arange(length, dtype=np.int32)
        return np.where(made < frames, made, -1).astype(np.int32)

    def count(self, frames: int, seconds: float = 0.0) -> int:
        """How many windows a clip of so many frames gives, however many seconds it has."""
        length, stride = self.length_frames, self.stride_frames
        if self.tail == "drop":
            return max(0, (frames - length) // stride + 1)
        return min(-(-max(frames - length, 0) // stride) + 1, -(-frames // stride))  # no window of nothing
