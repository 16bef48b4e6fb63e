"""Bytes at any place of a file, and what the structure of a container says about where it ends."""

import os
from typing import Any, BinaryIO, NamedTuple

from wavmill.pipeline.decoding.seekable import Seekable

HEAD_BYTES = 4096  # read once for every sound
FETCHED_BYTES = 64 << 20  # a longer object that is not a local file is not read twice to be searched


UNSIZED = ("other", "FLAC", "Ogg", "MPEG-TS", "NIST", "AVR", "WavPack", "FLV")  # have no sizes, or not for all there is


class Extent(NamedTuple):
    """What a container's own sizes say. Nothing is decoded for it.

    ``end``: the byte behind its last one; None where it does not say (written to a pipe).
    ``missing``: in words, why it cannot be all there; "" when nothing is missing.
    ``sound_end``: the byte behind the last sample, where decoders do not find it by themselves. When the sizes in the
    header are wrong, ``header`` is one with the right sizes, to be read in place of all before ``sound_start``.
    ``marks``: what a second sound of this kind would hold near its beginning, where no end is known.
    """

    container: str
    end: int | None = None
    missing: str = ""
    sound_end: int | None = None
    sound_start: int = 0
    header: bytes = b""
    marks: tuple[bytes, ...] = ()

    @property
    def streamed(self) -> bool:
        """Whether the sizes and lengths in its header are none."""
        return self.end is None and self.container not in UNSIZED


def cut(container: str, end: int, size: int, what: str = "its sizes promise") -> Extent:
    """The extent of a container that ends after the file does."""
    return Extent(container, end, f"{what} {end:,} bytes, and the file has {size:,}")


class Reader:
    """Bytes at any place of a file. Where the file stands stays where it was: a decoder goes on reading there."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.handle = file, handle_of(file)
        self.size = size_of(file) if self.handle is None else os.fstat(self.handle).st_size
        self.head = b""
        self.head = self.at(0, HEAD_BYTES)

    def at(self, place: int, count: int) -> bytes:
        """``count`` bytes from ``place`` on; fewer at the end of the file."""
        if place + count <= len(self.head):
            return self.head[place : place + count]
        if place >= self.size:  # headers may name any place
            return b""
        count = min(count, self.size - place)
        if self.handle is not None:
            return os.pread(self.handle, count, place)
        before = self.file.tell()
        self.file.seek(place)
        data = self.file.read(count)
        self.file.seek(before)
        return data

    @property
    def cheap(self) -> bool:
        """Whether reading all of it again costs little."""
        return self.handle is not None or self.size <= FETCHED_BYTES


class WithHeader(Seekable):
    """Bytes [start, end) of a file behind another header; what follows the sound is not its last samples."""

    def __init__(self, reader: Reader, end: int, start: int = 0, header: bytes = b"") -> None:
        super().__init__(len(header) + min(end, reader.size) - start)
        self.reader, self.start, self.header = reader, start, header

    def readinto(self, into: Any) -> int:
        count = max(0, min(len(into), self.size - self.at))
        data = self.header[self.at : self.at + count]
        if not data:
            data = self.reader.at(self.start + self.at - len(self.header), count)
        into[: len(data)] = data
        self.at += len(data)
        return len(data)


def handle_of(file: BinaryIO) -> int | None:
    """The system's handle of a real file; None of anything else that can be read."""
    try:
        return file.fileno()
    except OSError:
        return None


def size_of(file: BinaryIO) -> int:
    """Bytes."""
    if (handle := handle_of(file)) is not None:
        return os.fstat(handle).st_size
    before = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(before)
    return size


def id3_bytes(data: bytes) -> int:
    """The length of the ID3v2 tag that data begin with; 0 without one."""
    if len(data) < 10 or data[:3] != b"ID3":
        return 0
    size = 0
    for byte in data[6:10]:  # seven bits of each
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if data[5] & 0x10 else 0)  # and a footer
