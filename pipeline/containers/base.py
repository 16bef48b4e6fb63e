"""Bytes at any place of a file, and what the structure of a container says about where it ends."""

import os
from typing import BinaryIO, NamedTuple

from pipeline.seekable import Seekable

HEAD_BYTES = 4096  # read once for every sound
FETCHED_BYTES = 64 << 20  # a longer object that is not a local file is not read twice to be searched


class Extent(NamedTuple):
    """What a container's own sizes say. Nothing is decoded for it.

    ``end``: the byte behind its last one; None where it does not say (written to a pipe).
    ``missing``: in words, why it cannot be all there; "" when nothing is missing.
    ``sound_end``: only where the sizes in the header are wrong or unknown and the right one is known: the byte behind
    the last sample; ``patches`` are the bytes that a header with the right sizes has in place of those at these places.
    ``marks``: what a second sound of this kind would begin with, when that can stand before ``end`` as well.
    """

    container: str
    end: int | None = None
    missing: str = ""
    sound_end: int | None = None
    patches: tuple[tuple[int, bytes], ...] = ()
    marks: bytes = b""


def cut(container: str, end: int, size: int, what: str = "its sizes promise") -> Extent:
    """The extent of a container that ends after the file does."""
    return Extent(container, end, f"{what} {end:,} bytes, and the file has {size:,}")


class Reader:
    """Bytes at any place of a file. Where the file stands stays where it was: a decoder goes on reading there."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.handle, self.size = file, handle_of(file), size_of(file)
        self.head = b""
        self.head = self.at(0, HEAD_BYTES)

    def at(self, place: int, count: int) -> bytes:
        """``count`` bytes from ``place`` on; fewer at the end of the file."""
        if place + count <= len(self.head):
            return self.head[place : place + count]
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


class Mended(Seekable):
    """A file up to a byte, with other bytes in some places: what is behind a sound is not its last samples."""

    def __init__(self, reader: Reader, end: int, patches: tuple[tuple[int, bytes], ...] = ()) -> None:
        super().__init__(min(end, reader.size))
        self.reader, self.patches = reader, patches

    def readinto(self, into) -> int:  # type: ignore[no-untyped-def,override]
        data = bytearray(self.reader.at(self.at, max(0, min(len(into), self.size - self.at))))
        for place, right in self.patches:
            for i, byte in enumerate(right, place - self.at):
                if 0 <= i < len(data):
                    data[i] = byte
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
