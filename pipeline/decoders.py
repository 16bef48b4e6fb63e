"""Two decoders, and whether a sound is all there.

libsndfile (soundfile) reads what it can open; FFmpeg (PyAV) what it cannot: AAC, m4a, mp4, webm, and MP3, of which
libsndfile reads no more than the length it guesses. A file that libsndfile opens and then fails to read is rejected,
not tried again: half a FLAC is no sound. Neither says a word when a WAV, an Ogg or an MP3 ends too early: that is
found by what the container promises.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import Reject

BLOCK_FRAMES = 1 << 18
UNKNOWN_FRAMES = (1 << 63) - 1  # what libsndfile says of a FLAC that was written to a pipe
SEEK_EXACTLY = {"WAV", "WAVEX", "FLAC", "AIFF", "RF64", "W64", "AU", "CAF"}  # others are read from the start
SIZE_OF_SOUND = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_BYTES = 0x7FFF_0000  # from here on a size is what programs write that cannot go back to correct it
SLACK_S = 0.1  # between what a header promises and what comes out: encoders' delays and whole frames
OGG_PAGE_BYTES = 65_307  # the largest


class Libsndfile:
    """WAV, FLAC, Ogg and the rest of libsndfile, where the header says how long the sound is."""

    def __init__(self, sound: Any, handle: Any) -> None:
        self.sound, self.rate_hz, self.channels, self.handle = sound, sound.samplerate, sound.channels, handle

    @classmethod
    def opened(cls, file: BinaryIO) -> "Libsndfile | None":
        import soundfile

        try:
            handle: Any = file.fileno()  # libsndfile reads a real file by itself, which is faster
        except io.UnsupportedOperation:
            handle = _Careful(file)
        try:
            sound = soundfile.SoundFile(handle, closefd=False)
        except (soundfile.LibsndfileError, TypeError):
            _check(handle)
            return None
        _check(handle)
        # without Xing's header an MP3's length is a guess by the bit rate, and two joined files have one header
        if sound.format == "MP3" or not 0 < sound.frames < UNKNOWN_FRAMES:
            sound.close()
            return None
        if cut := cut_short(sound, file):
            sound.close()
            raise Reject("truncated", cut)
        return cls(sound, handle)

    def skip(self, start: int) -> int:
        if start and self.sound.format in SEEK_EXACTLY and self.sound.seekable():
            return self._tried(lambda: self.sound.seek(min(start, self.sound.frames)))
        return 0

    def blocks(self) -> Iterator[np.ndarray]:
        while len(block := self._tried(lambda: self.sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True))):
            yield block

    def _tried(self, work: Any) -> Any:
        import soundfile

        try:
            done = work()
        except soundfile.LibsndfileError as error:
            _check(self.handle)
            raise Reject("corrupt", f"libsndfile: {error.error_string}") from error
        _check(self.handle)
        return done

    def close(self) -> None:
        self.sound.close()


class _Careful:
    """A file for libsndfile, whose callbacks drop exceptions: a network that fails would look like a sound's end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: Exception | None = None

    def readinto(self, into: Any) -> int:
        return self._tried(lambda: self.file.readinto(into))  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._tried(lambda: self.file.seek(offset, whence))

    def tell(self) -> int:
        return self._tried(self.file.tell)

    def _tried(self, work: Callable[[], int]) -> int:
        try:
            return work() if self.error is None else 0
        except Exception as error:
            self.error = error
            return 0


def _check(handle: Any) -> None:
    """Raise what a callback could not."""
    if isinstance(handle, _Careful) and handle.error is not None:
        raise handle.error


class Ffmpeg:
    """The first audio stream of anything FFmpeg opens."""

    def __init__(self, container: Any, promised_s: float) -> None:
        self.container, stream, self.promised_s = container, container.streams.audio[0], promised_s
        self.rate_hz, self.channels = stream.codec_context.sample_rate, stream.codec_context.channels
        if not self.rate_hz or not self.channels:
            raise Reject("corrupt", "FFmpeg finds a sound without a sampling rate")

    @classmethod
    def opened(cls, file: BinaryIO) -> "Ffmpeg | None":
        import av

        av.logging.set_level(av.logging.PANIC)  # what is wrong is said by the reject, once
        file.seek(0)
        try:
            container = av.open(file, mode="r", metadata_errors="ignore")
        except (av.FFmpegError, ValueError):
            return None
        return cls(container, promised_s(container, file)) if container.streams.audio else None

    def skip(self, start: int) -> int:
        return 0

    def blocks(self) -> Iterator[np.ndarray]:
        import av

        to_float, came = av.AudioResampler(format="fltp"), 0
        try:
            for frame in self.container.decode(audio=0):
                for plain in to_float.resample(frame):
                    came += plain.samples
                    yield plain.to_ndarray().T  # (N, channels)
        except (av.FFmpegError, ValueError) as error:
            raise Reject("corrupt", f"FFmpeg: {error}") from error
        if came / self.rate_hz < self.promised_s - SLACK_S:
            said = f"{came / self.rate_hz:.2f} s came out, and its header promises {self.promised_s:.2f} s"
            raise Reject("truncated", said)

    def close(self) -> None:
        self.container.close()


def cut_short(sound: Any, file: BinaryIO) -> str:
    """What is missing at the end of a sound that libsndfile opened, or ""."""
    if sound.format == "OGG":
        return "" if _ends_ogg(file) else "its last page is not the end of the stream"
    for claimed, there in SIZE_OF_SOUND.findall(sound.extra_info):
        if int(there) < int(claimed) < UNKNOWN_BYTES:
            return f"its header promises {int(claimed):,} bytes of sound, and {int(there):,} are there"
    return ""


def _ends_ogg(file: BinaryIO) -> bool:
    """Whether the last page is whole and has the flag for the end of a stream (RFC 3533, section 6)."""
    at = file.tell()
    file.seek(-min(OGG_PAGE_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
    end = file.read()
    file.seek(at)
    page = end[max(0, end.rfind(b"OggS\0")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def promised_s(container: Any, file: BinaryIO) -> float:
    """How long the container says its sound is; 0 where it does not say, or FFmpeg but guesses from the bit rate."""
    kind, stream = container.format.name, container.streams.audio[0]
    if "matroska" in kind:
        said = stream.metadata.get("DURATION", "")
        if match := re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", said):
            hours, minutes, seconds = (float(part) for part in match.groups())
            return 3600 * hours + 60 * minutes + seconds
        return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0  # FFmpeg counts microseconds
    if "mp4" in kind:
        return float((stream.duration or 0) * stream.time_base)
    if kind == "mp3":
        rate_hz = stream.codec_context.sample_rate
        return _frames_of_mp3(file) * (1152 if rate_hz >= 32_000 else 576) / max(1, rate_hz)
    return 0.0


def _frames_of_mp3(file: BinaryIO) -> int:
    """The count of frames in the first one, where encoders put it (Xing's or Fraunhofer's header); 0 if they did not.

    FFmpeg's own number is a guess when the file is not as long as that header says.
    """
    at = file.tell()
    file.seek(0)
    start = file.read(256)
    if start[:3] == b"ID3":
        size = 0
        for byte in start[6:10]:  # seven bits of each
            size = size << 7 | byte & 0x7F
        file.seek(10 + size)
        start = file.read(256)
    file.seek(at)
    for name, count_at, flag in ((b"Xing", 8, 1), (b"Info", 8, 1), (b"VBRI", 14, 0)):
        place = start.find(name)
        if place >= 0 and (not flag or (start[place + 7 : place + 8] and start[place + 7] & flag)):
            return int.from_bytes(start[place + count_at : place + count_at + 4], "big")
    return 0
