"""Decode bytes to float32 at a given rate, and cut them into clips, or reject them. By content, not by name."""

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Annotated, BinaryIO, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from wavmill.pipeline import notices
from wavmill.pipeline.containers import extent_of
from wavmill.pipeline.containers.base import Reader
from wavmill.pipeline.containers.video import Fps, frames_between, video_of
from wavmill.pipeline.decoding.channels import Cancelling
from wavmill.pipeline.decoding.decoders import EXPANSION, Libsndfile, most_frames
from wavmill.pipeline.decoding.ffmpeg import Ffmpeg, Gap
from wavmill.pipeline.decoding.integrity import check_structure
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.job.choice import Choice, LeftOutAtDefault

CONTEXT_S = 2  # context decoded around a part of a longer sound, dropped after extraction
RATES_HZ = range(1_000, 768_001)
MOST_CHANNELS = 64
LONGEST_S = 24 * 3600  # of one sound
WHOLE_S = 6 * 3600  # the longest clip, as it is in one worker's memory
MAX_GAP_S = 0.1


class Clip(Choice):
    """The options of cutting: shortest and longest clip, and the channel.

    A sound longer than ``max_s`` is cut into parts of that many whole seconds; a rest shorter than ``min_s``
    stays with the part before it. ``channel`` is the mean of all, or the number of one, from 0. With ``video`` a clip
    has the columns ``frames`` and ``fps`` of the video in its file, or of the folder of frames beside it, which
    does not say its rate: it is taken to be ``fps``. ``track`` is the number of an audio track, from 0; None takes the
    default one, as FFmpeg does. Where packets are lost or cannot be decoded there is silence, so that what follows is
    in time; a clip with more than ``max_gap_s`` of it, its context included, is rejected.
    """

    min_s: float = Field(0.1, ge=0, allow_inf_nan=False)
    max_s: int = Field(30, ge=1, le=3600)
    channel: Literal["mean"] | Annotated[int, Field(ge=0)] = "mean"
    video: Annotated[bool, LeftOutAtDefault] = False
    fps: Annotated[Fps | None, LeftOutAtDefault] = None
    track: Annotated[Annotated[int, Field(ge=0)] | None, LeftOutAtDefault] = None
    max_gap_s: Annotated[float, LeftOutAtDefault] = Field(MAX_GAP_S, ge=0, allow_inf_nan=False)

    @field_validator("max_s")
    @classmethod
    def _above_min_s(cls, max_s: int, info: ValidationInfo) -> int:
        if max_s < info.data.get("min_s", 0):
            raise ValueError(f"a clip of at most {max_s} s cannot be at least {info.data['min_s']:g} s long")
        return max_s


class Part(NamedTuple):
    """One clip's sound, or why it cannot be used."""

    start_s: float  # of the kept samples, in the object
    whole: bool  # the sound is one clip
    audio: np.ndarray  # (N,) float32 at the rate asked for, with the context around the kept samples
    lead_samples: int
    kept_samples: int
    reject: Reject | None = None
    frames: int | None = None  # of the video that begin in it
    fps: str | None = None
    last: bool = False  # of its sound
    notice: str = ""  # codes of notices.py (warnings), separated by spaces


def parts_of(
    file: BinaryIO,
    clip: Clip,
    rate_hz: int,
    start_s: float = 0.0,
    end_s: float = math.inf,
    lo: int = 0,
    hi: int = -1,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Part]:
    """Decode [start_s, end_s) of a sound and cut it into clips at whole seconds.

    ``lo`` and ``hi`` (-1 = to the end): the seconds of a long sound that this worker takes, multiples of
    ``clip.max_s``. ``alive`` is called during decoding. Raises Reject when decoding fails; the parts yielded before
    are valid.
    """
    video = video_of(file, alive, clip.track) if clip.video else None
    with Sound(file, clip.channel, alive, track=clip.track) as sound:
        hz = sound.rate_hz
        first, limit = round(start_s * hz), end_s * hz
        shortest = max(1, round(clip.min_s * hz))
        at = lo
        while hi < 0 or at < hi:
            lead_s = min(CONTEXT_S, at)
            begin = first + (at - lead_s) * hz
            stop = first + (at + clip.max_s) * hz + max(CONTEXT_S * hz, shortest)
            audio = sound.read(begin, round(min(stop, limit)))
            rest = len(audio) - lead_s * hz  # from where the part starts
            if rest < shortest and lo:  # an earlier stretch has all of the sound
                raise Reject("shorter_than_header", f"there is no sound from {at} s on, and its header promised some")
            if rest < shortest:
                raise Reject("too_short", f"{max(0, rest) / hz:.3f} s from {at} s on; clip.min_s is {clip.min_s:g}")
            last = rest < clip.max_s * hz + shortest
            if not last:
                audio = audio[: (lead_s + clip.max_s + CONTEXT_S) * hz]
            lead_samples = lead_s * rate_hz
            wave = resampled(audio, hz, rate_hz)
            kept_samples = len(wave) - lead_samples if last else clip.max_s * rate_hz
            finite = np.isfinite(audio).all()
            reject = None if finite else Reject("non_finite", "the sound holds NaN or infinity")
            missing_s = sound.missing_samples(begin, begin + len(audio)) / hz if sound.gaps else 0.0
            if missing_s > clip.max_gap_s and reject is None:
                places = [gap.start / hz for gap in sound.gaps if gap.stop > begin]
                where = f"the first at {places[0]:.2f} s; clip.max_gap_s is {clip.max_gap_s:g}"
                reject = Reject("gap", f"{missing_s:.3f} s of sound are missing, {where}")
            frames, fps, ends = None, None, last and end_s == math.inf
            if video is not None:
                start = Fraction(first, hz) + at
                end = None if ends else start + Fraction(kept_samples, rate_hz)
                frames, fps = frames_between(video, start, end), str(video.fps)
            kept_until = begin + len(audio) if last else first + (at + clip.max_s) * hz
            cancels = sound.cancels(first + at * hz, kept_until)
            notice = notices.joined("channels_cancel" if cancels else "", "gap" if missing_s else "")
            yield Part(
                first / hz + at, last and not at, wave, lead_samples, kept_samples, reject, frames, fps, ends, notice
            )
            if last:
                return
            at += clip.max_s
            if not lo and hi < 0 and at >= WHOLE_S:
                raise Reject("too_long", f"more than {WHOLE_S // 3600} h in so few bytes; cut it into files")


def resampled(audio: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(N,) -> (ceil(N * to / from),) float32 by soxr's high quality; untouched when the rates agree.

    librosa resamples the same way; FFmpeg's swresample does not: its samples are relatively 0.003 to 0.007 apart from
    these at 44.1 and 48 kHz, and up to 0.06 at 8 kHz, as its filter is wider around half the lower rate.
    """
    if from_hz == to_hz:
        return audio
    import soxr

    made = soxr.resample(audio, from_hz, to_hz, quality="HQ")
    want = -(-len(audio) * to_hz // from_hz)
    return np.pad(made[:want], (0, max(0, want - len(made)))).astype(np.float32, copy=False)


class Sound:
    """One channel of a sound as a stream: ``read(start, stop)`` at its own rate, in rising order.

    It is read forward only, in whole blocks, so that samples do not depend on where the sound is cut.
    """

    def __init__(
        self,
        file: BinaryIO,
        channel: Literal["mean"] | int,
        alive: Callable[[], None] = lambda: None,
        check: bool = True,
        track: int | None = None,
    ) -> None:
        self.channel, self.alive = channel, alive
        file.seek(0)
        reader = Reader(file)
        if not reader.size:
            raise Reject("empty", "zero bytes")
        extent = check_structure(reader) if check else extent_of(reader)
        opened = Libsndfile.open(file, reader, extent, check)
        if opened is not None and track:
            opened.close()
            raise Reject("no_track", f"audio track {track} of a file with one; it is track 0")
        source = opened or Ffmpeg.open(file, track, reader, extent)
        if source is None:
            raise Reject("not_audio", "neither libsndfile nor FFmpeg finds a sound in it")
        self.source: Libsndfile | Ffmpeg = source
        self.rate_hz: int = self.source.rate_hz
        if self.rate_hz not in RATES_HZ:
            raise Reject("bad_rate", f"{self.rate_hz} Hz; from {RATES_HZ[0]} to {RATES_HZ[-1]} can be resampled")
        if self.source.channels > MOST_CHANNELS:
            raise Reject("too_many_channels", f"{self.source.channels}; at most {MOST_CHANNELS} are read")
        if channel != "mean" and not 0 <= channel < self.source.channels:
            raise Reject("no_channel", f"channel {channel} of a sound with {self.source.channels}")
        self.at, self.held = 0, np.zeros(0, np.float32)  # held: the samples [at, at + len(held))
        self.blocks: Iterator[np.ndarray] | None = None
        self.cancelling = Cancelling() if channel == "mean" and self.source.channels > 1 else None
        self.most_frames = most_frames(reader.size, self.source.channels)

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) as (N,) float32; fewer when the sound ends before."""
        if self.blocks is None:
            self.at = self.source.skip(start)
            self.blocks = self.source.blocks()
        pieces, end = [self.held], self.at + len(self.held)
        while end < stop and (block := next(self.blocks, None)) is not None:
            self.alive()
            mono = self._mono(block)
            if end + len(mono) > start:
                pieces.append(mono)
            else:
                pieces, self.at = [], end + len(mono)
            end += len(mono)
            if self.cancelling is not None:
                self.cancelling.add(end, block, mono)
            if end > LONGEST_S * self.rate_hz:
                raise Reject("too_long", f"more than {LONGEST_S // 3600} h of sound; cut it into files")
            if end > self.most_frames:
                raise Reject("expands", f"it comes out more than {EXPANSION:,} times as large as it is")
        held = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        drop = min(max(start - self.at, 0), len(held))
        self.held, self.at = held[drop:], self.at + drop
        return self.held[: max(0, stop - self.at)]

    def cancels(self, start: int, stop: int) -> bool:
        """Whether the channels cancel in samples [start, stop), the last that were read."""
        return self.cancelling is not None and self.cancelling.in_stretch(start, stop)

    @property
    def gaps(self) -> Sequence[Gap]:
        """The stretches of zeros for missing sound, in samples, as far as it was read."""
        return self.source.gaps

    def missing_samples(self, start: int, stop: int) -> int:
        """How many of the samples [start, stop) are zeros for missing sound."""
        return sum(max(0, min(gap.stop, stop) - max(gap.start, start)) for gap in self.gaps)

    def _mono(self, block: np.ndarray) -> np.ndarray:
        if block.shape[1] == 1 and self.channel in ("mean", 0):
            return block[:, 0]
        if self.channel != "mean":
            if self.channel >= block.shape[1]:
                raise Reject("no_channel", f"channel {self.channel} of a sound that goes on with {block.shape[1]}")
            return block[:, self.channel]
        two = block.shape[1] == 2  # mean's bits in a sixth of its time
        mono: np.ndarray = (block[:, 0] + block[:, 1]) * np.float32(0.5) if two else block.mean(axis=1)
        return mono


def length_s(file: BinaryIO) -> float:
    """The length of a sound by its header; 0 when it has none. Raises Reject as decoding does."""
    with Sound(file, "mean", check=False) as sound:
        if isinstance(sound.source, Libsndfile):
            return float(sound.source.sound.frames / sound.rate_hz)
        return (sound.source.container.duration or 0) / 1e6  # FFmpeg counts microseconds
