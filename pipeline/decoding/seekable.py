"""Something of known size that is read in pieces, as a file: io.BufferedReader and the decoders ask for no more."""

import errno
import io
import os
from typing import BinaryIO

MOST_BYTES = 1 << 40  # of a sound; file systems refuse places from 2 TiB on, each from another on


class Seekable(io.RawIOBase):
    """Where reading stands. A subclass says in ``readinto`` where bytes come from, and adds to ``at`` what came."""

    def __init__(self, size: int) -> None:
        self.size, self.at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """OSError for a place before the first byte, without going there: io.BufferedReader looks too late."""
        to = offset + (0, self.at, self.size)[whence]
        if to < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.at = to
        return to


def seek_or_stay(file: BinaryIO, offset: int, whence: int = os.SEEK_SET) -> int:
    """The new position; or -1, and the file stays where it was, for a place that no sound has.

    Damaged headers send decoders there. What is read next must not depend on how the bytes came: a file on a disk
    refuses such a place, bytes in memory take some of them for their beginning. Raises what a failing disk raises.
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
