"""Two decoders: libsndfile (soundfile) for files that it can open, FFmpeg (PyAV, ffmpeg.py) for all others.

FFmpeg also reads MP3, which libsndfile reads only up to a guessed length, and several FLAC or Ogg sounds in one file,
of which libsndfile reads the first. A file that libsndfile opens and then fails to read is rejected, not tried again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import numpy as np

from wavmill.pipeline.containers.base import Extent, Reader, WithHeader
from wavmill.pipeline.decoding.ffmpeg import Gap
from wavmill.pipeline.decoding.integrity import has_unread_sound
from wavmill.pipeline.decoding.seekable import seek_or_stay
from wavmill.pipeline.errors import Reject

BLOCK_FRAMES = 1 << 18
UNKNOWN_FRAMES = (1 << 63) - 1  # libsndfile's length of a FLAC that was written to a pipe
SEEK_EXACTLY = {"WAV", "WAVEX", "FLAC", "AIFF", "RF64", "W64", "AU", "CAF"}  # others are read from the start
MP3S = {"MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
EXPANSION, EXPANDED_BYTES = 10_000, 1 << 30  # silence in FLAC expands 8,000 times; a bomb 50,000 times


def most_frames(size: int, channels: int) -> int:
    """The most samples per channel that this many bytes give, except in decompression bombs."""
    return max(EXPANDED_BYTES, EXPANSION * size) // (4 * channels)


class Libsndfile:
    """WAV, FLAC, Ogg and the rest of libsndfile, where the header says how long the sound is."""

    gaps: Sequence[Gap] = ()  # it reads all or nothing

    def __init__(self, sound: Any, handle: Any) -> None:
        self.sound, self.rate_hz, self.channels, self.handle = sound, sound.samplerate, sound.channels, handle
        self.at = 0

    @classmethod
    def open(cls, file: BinaryIO, reader: Reader, extent: Extent | None, check: bool) -> "Libsndfile | None":
        """Open a file; None when FFmpeg is to read it. ``check``: search all of it for further sounds."""
        import soundfile

        mended = extent is not None and extent.header != b""
        if extent is not None and extent.sound_end is not None and (mended or extent.sound_end < reader.size):
            file = cast(BinaryIO, WithHeader(reader, extent.sound_end, extent.sound_start, extent.header))
        # libsndfile reads a real file by itself, which is faster
        handle: Any = reader.handle
        if file is not reader.file or handle is None:
            handle = _Careful(file)
        try:
            sound = soundfile.SoundFile(handle, closefd=False)
        except (soundfile.LibsndfileError, TypeError):
            _check(handle)
            if mended:
                raise Reject("header_lies", "the sizes in its header cannot be true; save it as RF64 or W64") from None
            return None
        _check(handle)
        # without Xing's header an MP3's length is a guess by the bit rate, and two joined files have one header
        if sound.format == "MP3" or sound.subtype in MP3S or not 0 < sound.frames < UNKNOWN_FRAMES:
            sound.close()
            return None
        decoder = cls(sound, handle)
        try:
            if sound.frames > most_frames(reader.size, sound.channels):
                raise Reject("header_lies", f"{sound.frames:,} samples cannot be in {reader.size:,} bytes")
            if check and has_unread_sound(sound, reader):
                decoder.close()
                return None
        except BaseException:
            decoder.close()
            raise
        return decoder

    def skip(self, start: int) -> int:
        if start and self.sound.format in SEEK_EXACTLY and self.sound.seekable():
            self.at = self._tried(lambda: self.sound.seek(min(start, self.sound.frames)))
        return self.at

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks (N, channels) float32. Reject ``truncated`` when there are fewer than the header says."""
        while len(block := self._tried(lambda: self.sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True))):
            self.at += len(block)
            yield block
        if self.at < self.sound.frames:
            promised = f"its header promises {self.sound.frames:,}"
            raise Reject("truncated", f"it ends after {self.at:,} samples, and {promised}")

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
    """A file for libsndfile, whose callbacks drop exceptions: a network error would look like the end of the sound."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: Exception | None = None

    def readinto(self, into: Any) -> int:
        return self._tried(lambda: self.file.readinto(into))  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._tried(lambda: seek_or_stay(self.file, offset, whence))

    def tell(self) -> int:
        return self._tried(self.file.tell)

    def _tried(self, work: Callable[[], int]) -> int:
        try:
            return work() if self.error is None else 0
        except Exception as error:
            self.error = error
            return 0


def _check(handle: Any) -> None:
    """Raise the exception of a callback, if any."""
    if isinstance(handle, _Careful) and handle.error is not None:
        raise handle.error
