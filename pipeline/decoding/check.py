"""check: reject clips by their video's frame rate and length."""

from fractions import Fraction

import pyarrow as pa
from pydantic import Field

from wavmill.pipeline.containers.video import Fps, frames_in, same_rate
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.job.choice import Choice
from wavmill.pipeline.rows import marked

STEPS_HZ = 50  # steps a second: Whisper's, as in MuseTalk's rule


class Check(Choice):
    """Rejects clips whose video is not at ``fps`` (``wrong_fps``), or not as long as their sound (``length_mismatch``).

    ``max_step_gap``: |frames * 50 / fps - steps| may be as much, with 50 steps to a second of sound; MuseTalk drops
    clips above 10. Folders of frames, which do not say their rate, are taken to have ``fps``.
    """

    fps: Fps | None = None
    max_step_gap: int | None = Field(None, ge=0)

    def __bool__(self) -> bool:
        """Whether anything is checked."""
        return self.fps is not None or self.max_step_gap is not None

    def __call__(self, shard: pa.Table) -> pa.Table:
        """Mark the decoded clips (with columns ``frames`` and ``fps``) that fail a check as rejected."""
        rejected = {}
        good = [i for i, error in enumerate(shard["error"].to_pylist()) if not error]
        frames, fps, seconds = (shard[name].to_pylist() for name in ("frames", "fps", "seconds"))
        for i in good:
            if reject := self._wrong(frames[i], fps[i], seconds[i]):
                rejected[i] = reject
        return marked(shard, "check", rejected)

    def _wrong(self, frames: int | None, fps: str | None, seconds: float) -> Reject | None:
        if frames is None:
            return Reject("no_video", "there is no video in it, and no folder of frames beside it")
        if fps is None:
            return Reject("no_fps", "a folder of frames does not say its rate; say it as check.fps or clip.fps")
        if self.fps is not None and not same_rate(Fraction(fps), Fraction(self.fps)):
            return Reject("wrong_fps", f"its video has {float(Fraction(fps)):g} fps; check.fps is {self.fps}")
        if self.max_step_gap is not None:
            gap = abs(frames * STEPS_HZ / Fraction(fps) - frames_in(seconds, Fraction(STEPS_HZ)))
            if gap > self.max_step_gap:
                apart = f"{float(gap) / STEPS_HZ:.2f} s apart"
                return Reject(
                    "length_mismatch", f"{frames:,} frames at {fps} fps and {seconds:.2f} s of sound are {apart}"
                )
        return None
