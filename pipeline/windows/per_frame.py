"""What windows have in common that are made one for each frame of video."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from wavmill.pipeline.containers.video import Fps, exact, first_frame
from wavmill.pipeline.contracts import Window
from wavmill.pipeline.errors import Reject

ON_TIME = Fraction(0)
USUAL_FPS = 25


class PerFrame(Window):
    """A window for every frame of the video with ``fps: from_video``, otherwise for every whole one in the sound."""

    fps: Literal["from_video"] | Fps = "from_video"
    compat_float: bool = False

    @property
    def reads(self) -> str:
        return "feature"

    @property
    def needs_video(self) -> bool:
        return self.fps == "from_video"

    @property
    def facts(self) -> tuple[str, ...]:
        return ("seconds", "frames", "fps", "start_s") if self.fps == "from_video" else ("seconds",)

    def windows_hz(self, frames_hz: float) -> float:
        """As Window has it; a guess when only the video knows."""
        return float(Fraction(USUAL_FPS if self.fps == "from_video" else self.fps))

    def open(self) -> Callable[..., list[np.ndarray | Reject]]:
        def windows(clips: Sequence[np.ndarray], seconds: Sequence[float], *video: Any) -> list[np.ndarray | Reject]:
            told = zip(*video, strict=True) if video else [(None, self.fps, 0.0)] * len(clips)
            return [
                self.positions(len(clip), length_s, Fraction(fps), frames, first_frame_delay_s(start_s, Fraction(fps)))
                for clip, length_s, (frames, fps, start_s) in zip(clips, seconds, told, strict=True)
            ]

        return windows

    def count(self, there: int, seconds: float) -> int:
        """How many windows a clip of so many positions and seconds gives; with ``from_video`` one of one frame."""
        from_video = self.fps == "from_video"
        fps = Fraction(USUAL_FPS if from_video else self.fps)
        made = self.positions(there, seconds, fps, 1 if from_video else None)
        return 0 if isinstance(made, Reject) else len(made)

    def positions(
        self, there: int, seconds: float, fps: Fraction, frames: int | None = None, late_s: Fraction = ON_TIME
    ) -> np.ndarray | Reject:
        """The windows of a clip that has so many positions and seconds, and so many frames of video if it has one.

        ``late_s``: how long after the clip its first frame begins, when it is a part of a longer video.
        """
        raise NotImplementedError


def first_frame_delay_s(start_s: float, fps: Fraction) -> Fraction:
    """From the start of a part of a video to the first frame that begins in it: less than a frame."""
    return first_frame(start_s, fps) / fps - exact(start_s)
