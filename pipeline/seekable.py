"""Something of known size that is read in pieces, as a file: io.BufferedReader and the decoders ask for no more."""

import io
import os


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
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at
