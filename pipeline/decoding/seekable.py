"""A read-only file of known size, for io.BufferedReader and decoders; subclasses provide the bytes."""

import errno
import io
import os
from typing import BinaryIO

MOST_BYTES = 1 << 40  # the largest position; file systems refuse seeks beyond various limits from 2 TiB


class Seekable(io.RawIOBase):
    """Keeps the position ``at``. A subclass implements ``readinto``, which advances it."""

    def __init__(self, size: int) -> None:
        self.size, self.at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """OSError for a negative position, without seeking: io.BufferedReader checks too late."""
        to = offset + (0, self.at, self.size)[whence]
        if to < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.at = to
        return to


def seek_or_stay(file: BinaryIO, offset: int, whence: int = os.SEEK_SET) -> int:
    """Seek, and return the new position; or -1 without seeking for a position that is out of range.

    Damaged headers make decoders seek out of range. Files on disk refuse that and bytes in memory may not, but results
    must not depend on it. Raises errors of the disk.
    """
    before = file.tell() if whence != os.SEEK_SET else 0
    if whence == os.SEEK_CUR:
        to = before + offset
    elif whence == os.SEEK_END:
        to = file.seek(0, os.SEEK_END) + offset
    else:
        to = offset
    if 0 <= to <= MOST_BYTES:
        return file.seek(to)
    if whence == os.SEEK_END:
        file.seek(before)
    return -1
