"""Random access to the bytes of a file, and the extent of a container."""

import os
from typing import Any, BinaryIO, NamedTuple

from wavmill.pipeline.decoding.seekable import Seekable

HEAD_BYTES = 4096  # read once for every sound
FETCHED_BYTES = 64 << 20  # a longer object that is not a local file is not read twice to be searched


UNSIZED = (
    "other",
    "FLAC",
    "Ogg",
    "MPEG-TS",
    "NIST",
    "AVR",
    "WavPack",
    "FLV",
)  # kinds without sizes, or not for everything


class Extent(NamedTuple):
    """The extent of a container by its own sizes; nothing is decoded.

    ``end``: the position behind its last byte; None when unknown (written to a pipe).
    ``missing``: a message why it is incomplete, else "".
    ``sound_end``: the position behind the last sample, where decoders do not find it. When the sizes in the header are
    wrong, ``header`` is a corrected one that replaces everything before ``sound_start``.
    ``marks``: bytes near the beginning of another sound of this kind, when the end is unknown.
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
        """Whether its header has no valid sizes and lengths."""
        return self.end is None and self.container not in UNSIZED


def cut(container: str, end: int, size: int, what: str = "its sizes promise") -> Extent:
    """The extent of a container that ends after the file does."""
    return Extent(container, end, f"{what} {end:,} bytes, and the file has {size:,}")


class Reader:
    """Random access to a file that keeps its position, as a decoder goes on reading there."""

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
        """Whether it is cheap to read all of it again."""
        return self.handle is not None or self.size <= FETCHED_BYTES


class WithHeader(Seekable):
    """A file made of another header and bytes [start, end) of a file."""

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
    """The file descriptor of a local file; None for other file objects."""
    try:
        return file.fileno()
    except OSError:
        return None


def size_of(file: BinaryIO) -> int:
    """The size of a file in bytes."""
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
