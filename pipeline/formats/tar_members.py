"""List the members of a tar by their headers, in bounded memory whatever the headers say.

Reads headers of POSIX (pax), GNU tar (long names, sparse files) and older programs. A member whose headers exceed a
limit is yielded with the reason, and the walk goes on behind it; where it cannot, ``damage`` says why.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from wavmill.pipeline.errors import Reject
from wavmill.pipeline.store.names import decode_name

BLOCK_BYTES = 512  # what tar counts in
EXTENSION_BYTES = 1 << 20  # the limit of one pax header; 64 KiB is a large one
EXTENSIONS = 64  # the limit of headers before one member; programs write up to three
NAME_BYTES = 4096  # the longest path of a system
EXPANSION, EXPANDED_BYTES = 1_000, 1 << 30  # a file that unpacks to more than both limits is a bomb
UNPACKED_BYTES = 128 << 20  # up to this size it is unpacked once and held in memory
PACKED = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ": lzma.LZMAFile}
EXTENDING = (b"x", b"X", b"g", b"L", b"K")  # types of headers about other members: pax, global pax, GNU's long names
DAMAGES = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


class Member(NamedTuple):
    """A regular file in a tar. Positions are bytes of the unpacked tar."""

    name: str  # as text (names.py)
    start: int  # of its first header
    at: int  # of its data
    stored: int  # bytes of data in the tar
    size: int  # bytes of the file: more than ``stored`` when it is sparse
    sparse: bool = False
    cut: bool = False  # the tar ends before its data does
    wrong: Reject | None = None  # why the member is rejected by its headers


class Unpacked(NamedTuple):
    """An unpacked tar."""

    file: BinaryIO
    packed: bool
    held: bool  # any place in it is at hand
    most_bytes: int  # more than that is not read
    damage: str = ""  # why unpacking ended early, if it did


def unpacked(file: BinaryIO) -> Unpacked:
    """Open a tar, or one packed by gzip, bzip2 or xz (by its first bytes). A small one is unpacked into memory."""
    file.seek(0)
    start = file.read(6)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    kind: Any = next((kind for mark, kind in PACKED.items() if start.startswith(mark)), None)
    if kind is None:
        return Unpacked(file, False, True, size)
    most = max(EXPANDED_BYTES, EXPANSION * size)
    held, damage = bytearray(), ""
    try:
        with _opened(kind, file) as packed:
            while len(held) <= UNPACKED_BYTES and (piece := packed.read(1 << 20)):
                held += piece
    except DAMAGES as error:
        damage = told(error)
    if len(held) <= UNPACKED_BYTES:
        return Unpacked(io.BytesIO(held), True, True, most, damage)
    file.seek(0)
    return Unpacked(_opened(kind, file), True, False, most)


def _opened(kind: Any, file: BinaryIO) -> Any:
    return kind(fileobj=file, mode="rb") if kind is gzip.GzipFile else kind(file)


def told(error: Exception) -> str:
    """The Reject for an error of reading the tar. Raises errors of the machine."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return str(error)


class Walk:
    """The regular files of a tar in the order of their headers; while one is yielded the tar stands at its data.

    Afterwards ``damage`` is None, or the Reject of everything from byte ``ended`` on; what lies behind ``reached`` was
    not there.
    """

    def __init__(self, tar: Unpacked) -> None:
        self.tar, self.file = tar, tar.file
        self.damage: Reject | None = None
        self.ended = self.reached = 0
        self.known_bytes = tar.file.seek(0, os.SEEK_END) if tar.held else None

    def __iter__(self) -> Iterator[Member]:
        try:
            yield from self._members()
        except DAMAGES as error:
            self.damage = Reject("corrupt", f"the tar is damaged: {told(error)}")
        if self.tar.damage:
            self.damage = Reject("corrupt", f"the tar is damaged: {self.tar.damage}")

    def _members(self) -> Iterator[Member]:
        at = start = extensions = 0
        names: _Names = _Names()
        wrong: Reject | None = None
        while True:
            self.ended = start
            if self.file.seek(at) == at:  # what is packed ends early
                self.reached = at
            if self.reached != at or len(block := self.file.read(BLOCK_BYTES)) < BLOCK_BYTES:
                self.damage = Reject("corrupt", f"the tar breaks off before byte {at + BLOCK_BYTES}")
                return
            if not any(block):
                self._check_rest(at)
                return
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                self.damage = Reject("corrupt", f"the tar is damaged: {error} (the header at byte {at})")
                return
            at += BLOCK_BYTES
            stored = header.size if names.stored is None or header.type in EXTENDING else names.stored
            if stored < 0:
                raise tarfile.HeaderError(f"a member of {stored} bytes (the header at byte {at - BLOCK_BYTES})")
            if header.type in EXTENDING:
                extensions += 1
                if header.type in (b"x", b"X", b"L"):
                    wrong = self._extend(names, header.type, stored, extensions) or wrong
                at += _padded(stored)
                if self._beyond(at):
                    return
                continue
            if header.type == tarfile.GNUTYPE_SPARSE:
                names.real, more = _number(block[483:495]), block[482]
                while more:  # blocks of its map
                    block = self.file.read(BLOCK_BYTES)
                    more, at = block[504] if len(block) == BLOCK_BYTES else 0, at + BLOCK_BYTES
            has_data = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
            after = at + (_padded(stored) if has_data else 0)
            if header.isreg():
                cut = self.known_bytes is not None and at + stored > self.known_bytes
                sparse = header.type == tarfile.GNUTYPE_SPARSE or names.real is not None
                size = names.real if sparse and names.real is not None else stored
                name = names.sparse_name or names.name or header.name.encode("utf-8", "surrogateescape")
                member = Member(decode_name(name), start, at, stored, size, sparse, cut, wrong)
                if not cut and self.known_bytes is None and self._beyond(after):
                    return
                yield member
                if cut:
                    self.damage = Reject("corrupt", f"the tar breaks off before byte {after}, in {member.name[:200]}")
                    self.ended = start
                    return
            if self._beyond(after):
                return
            at = start = after
            extensions, names, wrong = 0, _Names(), None

    def _extend(self, names: "_Names", kind: bytes, size: int, extensions: int) -> Reject | None:
        """Read a header about the next member; return why the member is rejected, if it is."""
        if extensions > EXTENSIONS:
            return Reject("too_large", f"more than {EXTENSIONS} headers belong to it")
        if size > EXTENSION_BYTES:
            limit = f"at most {EXTENSION_BYTES:,} are read"
            return Reject("too_large", f"a header of {size:,} bytes belongs to it; {limit}")
        data = self.file.read(size)
        try:
            if kind == b"L":
                names.name = data.partition(b"\0")[0]
            else:
                names.take(data)
            if len(names.sparse_name or names.name or b"") > NAME_BYTES:
                names.name = names.sparse_name = None
                return Reject("too_large", f"its name has more than {NAME_BYTES:,} bytes")
        except ValueError as error:
            return Reject("corrupt", f"its pax header cannot be read: {error}")
        return None

    def _beyond(self, at: int) -> bool:
        if self.tar.packed and at > self.tar.most_bytes:
            limit = f"{self.tar.most_bytes >> 20:,} MiB"
            self.damage = Reject("too_large", f"it unpacks to more than {limit}; the rest of the tar is left out")
            return True
        return False

    def _check_rest(self, at: int) -> None:
        """Check that the tar ends with blocks of zeros and nothing else."""
        read = at + BLOCK_BYTES
        while rest := self.file.read(1 << 20):
            if rest.count(0) != len(rest):
                self.damage = Reject("corrupt", f"the tar ends at byte {at}, and something comes after it")
                return
            read += len(rest)
            if self._beyond(read):
                return


class _Names:
    """Facts about a member from the headers before it."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.sparse_name: bytes | None = None  # the real name, when ``name`` was made up by GNU tar
        self.stored: int | None = None
        self.real: int | None = None  # bytes of a sparse file

    def take(self, data: bytes) -> None:
        """The records of a pax header: b"LENGTH KEY=VALUE\\n"."""
        at = 0
        while at < len(data) and data[at : at + 1] != b"\0":
            digits, space, _ = data[at : at + 20].partition(b" ")
            length = int(digits) if space and digits.isdigit() else 0
            record = data[at + len(digits) + 1 : at + length - 1]
            key, equals, value = record.partition(b"=")
            if length <= len(digits) + 1 or at + length > len(data) or not equals:
                raise ValueError(f"{data[at : at + 20]!r}")
            if key == b"GNU.sparse.name":
                self.sparse_name = value
            elif key == b"path":
                self.name = value.rstrip(b"/")
            elif key == b"size":
                self.stored = _count(value)
            elif key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
                self.real = _count(value)
            at += length


def _number(field: bytes) -> int:
    """Parse a number of a header: octal digits, or base 256 when the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise tarfile.HeaderError(f"{field!r} is no size") from error


def _count(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError(f"{digits[:20]!r} bytes")
    return int(digits)


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
