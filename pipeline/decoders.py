"""Two decoders.

libsndfile (soundfile) reads what it can open; FFmpeg (PyAV) what it cannot: AAC, m4a, mp4, webm, MP3, of which
libsndfile reads no more than the length it guesses, and several FLAC or Ogg sounds in one file, of which it reads the
first. A file that libsndfile opens and then fails to read is rejected, not tried again: half a FLAC is no sound.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import Reject
from pipeline.whole import another_begins, check_end, handle_of, promised_s, size_of

BLOCK_FRAMES = 1 << 18
UNKNOWN_FRAMES = (1 << 63) - 1  # what libsndfile says of a FLAC that was written to a pipe
SEEK_EXACTLY = {"WAV", "WAVEX", "FLAC", "AIFF", "RF64", "W64", "AU", "CAF"}  # others are read from the start
SLACK_S = 0.1  # between what a header promises and what comes out: encoders' delays and whole frames
EXPANSION, EXPANDED_BYTES = 10_000, 1 << 30  # silence in FLAC comes out 8,000 times its size; a bomb, 50,000


def most_frames(size: int, channels: int) -> int:
    """More than that many samples of each channel do not come out of so many bytes, unless somebody means harm."""
    return max(EXPANDED_BYTES, EXPANSION * size) // (4 * channels)


class Libsndfile:
    """WAV, FLAC, Ogg and the rest of libsndfile, where the header says how long the sound is."""

    def __init__(self, sound: Any, handle: Any) -> None:
        self.sound, self.rate_hz, self.channels, self.handle = sound, sound.samplerate, sound.channels, handle

    @classmethod
    def opened(cls, file: BinaryIO, check: bool) -> "Libsndfile | None":
        """None when it is FFmpeg's. ``check``: look at the end, and through it all, for what is missing or joined."""
        import soundfile

        # libsndfile reads a real file by itself, which is faster
        handle: Any = _Careful(file) if handle_of(file) is None else handle_of(file)
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
        opened = cls(sound, handle)
        try:
            if sound.frames > most_frames(size_of(file), sound.channels):
                raise Reject("header_lies", f"{sound.frames:,} samples cannot be in {size_of(file):,} bytes")
            if check:
                check_end(sound, file)
                if another_begins(sound, file):
                    opened.close()
                    return None
        except BaseException:
            opened.close()
            raise
        return opened

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
        if stream.codec_context is None:
            raise Reject("no_decoder", "FFmpeg knows its container, and no decoder for the sound in it")
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

        # packed, for PyAV reads past the table of its planes when there are eight channels or more
        to_float, came = av.AudioResampler(format="flt"), 0
        try:
            for frame in self.container.decode(audio=0):
                for plain in to_float.resample(frame):
                    came += plain.samples
                    yield plain.to_ndarray().reshape(plain.samples, -1)  # (N, channels)
        except (av.FFmpegError, ValueError) as error:
            raise Reject("corrupt", f"FFmpeg: {error}") from error
        if came / self.rate_hz < self.promised_s - SLACK_S:
            said = f"{came / self.rate_hz:.2f} s came out, and its header promises {self.promised_s:.2f} s"
            raise Reject("truncated", said)

    def close(self) -> None:
        self.container.close()
