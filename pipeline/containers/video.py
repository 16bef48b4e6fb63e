"""The number of frames and the frame rate of a file's video, without decoding pictures."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Annotated, Any, BinaryIO, NamedTuple

from pydantic import BeforeValidator

from wavmill.pipeline.containers.base import Reader
from wavmill.pipeline.containers.mp4 import is_fragmented
from wavmill.pipeline.decoding.ffmpeg import track_of
from wavmill.pipeline.errors import Reject

SAMPLES_HZ = 16_000  # lengths are counted in samples of this rate
HIGHEST_HZ = 768_000  # of any sound
STANDARD_FPS = [Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)]
STANDARD_FPS += [Fraction(25, 2), *(Fraction(n * 1000, 1001) for n in (15, 24, 30, 48, 60, 120))]
MILLISECOND = Fraction(1, 1000)  # to which times are rounded in WebM, Matroska, FLV, and in what is copied out of them
CLOCK = Fraction(1, 10)  # frames: tolerated deviation from a standard rate, by cameras' clocks
COARSE = Fraction(1, 2)  # frames: times with coarser rounding do not determine a rate
ALIKE = 1e-5  # 29.97 is meant as 30000/1001
APART_S = Fraction(1, 5)  # the most that a video may begin before or after its sound: MuseTalk's ten steps


def _fps(value: Any) -> Any:
    try:
        fps = Fraction(str(value)) if isinstance(value, int | float | str | Fraction) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if isinstance(value, bool) or not 1 <= fps <= 1000:
        raise ValueError("takes frames a second from 1 to 1000, as 25, 29.97 or 30000/1001")
    return str(fps)


Fps = Annotated[str, BeforeValidator(_fps, json_schema_input_type=float | str)]  # an exact fraction, as text


class Video(NamedTuple):
    """Frames, and their rate."""

    frames: int
    fps: Fraction


def same_rate(fps: Fraction, other: Fraction) -> bool:
    """Whether two rates are the same, within their usual rounding (29.97)."""
    return abs(float(fps / other) - 1) < ALIKE


def frames_in(seconds: float, fps: Fraction) -> int:
    """Whole frames in a sound, exactly: floor(N * fps / 16000)."""
    return floor(round(seconds * SAMPLES_HZ) * fps / SAMPLES_HZ)


def first_frame(start_s: float | Fraction, fps: Fraction) -> int:
    """The number in its video of the first frame that begins in a part of it."""
    return ceil(exact(start_s) * fps)


def frames_between(video: Video, start_s: Fraction, end_s: Fraction | None) -> int:
    """How many frames begin in [start_s, end_s) of a video; None: to its end."""
    first = min(first_frame(start_s, video.fps), video.frames)
    return (video.frames if end_s is None else min(first_frame(end_s, video.fps), video.frames)) - first


def exact(seconds: float | Fraction) -> Fraction:
    """The exact fraction (samples over sampling rate) of a time that was rounded to a float."""
    return Fraction(seconds).limit_denominator(HIGHEST_HZ)


def video_of(file: BinaryIO, alive: Callable[[], None] = lambda: None, track: int | None = None) -> Video | None:
    """The video of a file, None when there is none. Frames are counted by packets, as headers are estimates.

    Its rate is one that all times fit (``rate_of``). Reject ``variable_frame_rate`` when its frames are not evenly
    apart, ``video_offset`` when it begins more than 0.2 s before or after the sound; less is ignored, as in the
    upstream projects. ``alive`` is called during reading.
    """
    import av
    from av.stream import Disposition

    av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    try:
        container = av.open(file, mode="r", metadata_errors="ignore")
    except (av.FFmpegError, ValueError):
        return None
    with container:
        streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
        if not streams:
            return None
        stream = streams[0]
        try:
            times = []
            for packet in container.demux(stream):
                alive()
                if packet.pts is not None and packet.size and not packet.is_discard:
                    times.append(packet.pts)
            times.sort()
        except (av.FFmpegError, ValueError) as error:
            raise Reject("corrupt", f"FFmpeg: {error} (in the video)") from error
        guesses = [Fraction(guess) for guess in (stream.average_rate, stream.guessed_rate) if guess]
        tick_s, is_mp4 = Fraction(stream.time_base or MILLISECOND), "mp4" in container.format.name
        sounds = [track_of(container, track)] if container.streams.audio else []
        heard = [one.start_time * one.time_base for one in sounds if one.start_time is not None]
    if len(times) < 2:
        return Video(len(times), guesses[0]) if times and guesses else None
    if heard and abs(times[0] * tick_s - heard[0]) > APART_S:
        raise Reject("video_offset", f"its video begins {float(times[0] * tick_s - heard[0]):+.2f} s from its sound")
    if (fps := rate_of(times, tick_s, guesses)) is not None:
        return Video(len(times), fps)
    # a fragmented MP4 has no list of edits, so the sound's priming lies in the gap behind the first frame
    if len(times) > 2 and is_mp4 and is_fragmented(Reader(file)):
        fps = rate_of(times[1:], tick_s, guesses)
        if fps is not None and 0 < (times[1] - times[0]) * tick_s - 1 / fps <= APART_S:
            return Video(len(times), fps)
    gaps = [float((later - sooner) * tick_s) * 1000 for sooner, later in pairwise(times)]
    said = f"frames are {min(gaps):.0f} to {max(gaps):.0f} ms apart; make it constant, say with ffmpeg -r 25"
    raise Reject("variable_frame_rate", said)


def rate_of(times: list[int], tick_s: Fraction, guesses: list[Fraction]) -> Fraction | None:
    """The constant rate, in frames a second, of frames shown at these times, or None when they have none.

    times: rising, two at least, in ticks of ``tick_s``; guesses: what the container says its rate is.

    First a rate is looked for that explains every time but for its rounding, to ticks, or to milliseconds before that:
    a standard one, then a guess, then the measured one. Then a standard one that no two frames are further out of step
    with than a tenth of a frame.
    """
    span_s = (times[-1] - times[0]) * tick_s
    if not span_s:
        return None
    measured = (len(times) - 1) / span_s
    nearest = min(STANDARD_FPS, key=lambda fps: abs(fps - measured))
    standard = [*(guess for guess in guesses if guess in STANDARD_FPS), nearest]
    # AVI counts frames, so that the rate its header says fits exactly
    exact = [fps for fps in guesses if tick_s > MILLISECOND and not frame_misalignment(times, tick_s, fps)]
    for rounded_s in (tick_s, tick_s + MILLISECOND):
        for fps in (*exact, *standard, *guesses, measured):
            if frame_misalignment(times, tick_s, fps) < min(rounded_s * fps, COARSE):
                return fps
    return next((fps for fps in standard if frame_misalignment(times, tick_s, fps) < CLOCK), None)


def frame_misalignment(times: list[int], tick_s: Fraction, fps: Fraction) -> Fraction:
    """The largest deviation, in frames, of two frames' distance from a whole number of frames at that rate."""
    per_tick = tick_s * fps
    steps = [time * per_tick.numerator - i * per_tick.denominator for i, time in enumerate(times)]
    return Fraction(max(steps) - min(steps), per_tick.denominator)
