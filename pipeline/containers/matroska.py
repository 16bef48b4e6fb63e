"""Matroska and WebM (RFC 8794, RFC 9559): elements with their sizes, which may be unknown when written to a pipe."""

from wavmill.pipeline.containers.base import Extent, Reader, cut

EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
WINDOW_BYTES = 1 << 16
NAME = "Matroska"


def matroska(reader: Reader) -> Extent | None:
    at = 0
    segments = 0
    walk = _Elements(reader)
    while True:
        found = walk.element(at)
        if found is None:
            break
        number, begin, size = found
        if number == EBML and segments:
            break
        if number == SEGMENT:
            segments += 1
            if size is None:
                return _streamed(reader, walk, begin)
        elif number not in (EBML, 0xEC) or size is None:
            break
        at = begin + (size or 0)
        if at > reader.size:
            return cut(NAME, at, reader.size)
    return Extent(NAME, at) if segments else None


def _streamed(reader: Reader, walk: "_Elements", at: int) -> Extent:
    """A segment of unknown size: to the last element, as far as these say how long they are."""
    if not reader.cheap:
        return Extent(NAME)
    while at < reader.size:
        found = walk.element(at)
        if found is None:
            tail = reader.at(at, 12)
            return Extent(NAME, at, "its last element breaks off") if len(tail) < 12 else Extent(NAME, at)
        number, begin, size = found
        if number == EBML:
            break
        if number == CLUSTER and size is None:
            at = begin
            continue
        if size is None:
            return Extent(NAME, at)
        at = begin + size
        if at > reader.size:
            return cut(NAME, at, reader.size)
    return Extent(NAME, at)


class _Elements:
    def __init__(self, reader: Reader) -> None:
        self.reader, self.start, self.window = reader, 0, b""

    def element(self, at: int) -> tuple[int, int, int | None] | None:
        """(its number, where its content begins, how long that is) of the element at a byte; None where none is."""
        place = at - self.start
        if not (place >= 0 and place + 12 <= len(self.window)):
            self.start, self.window, place = at, self.reader.at(at, WINDOW_BYTES), 0
        window = self.window
        if place >= len(window) or not 0 < (id_bytes := 9 - window[place].bit_length()) <= 4:
            return None
        size_at = place + id_bytes
        if size_at >= len(window) or not 0 < (size_bytes := 9 - window[size_at].bit_length()) <= 8:
            return None
        end = size_at + size_bytes
        if end > len(window):
            return None
        number = int.from_bytes(window[place:size_at], "big")
        most = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(window[size_at:end], "big") & most
        return number, self.start + end, None if size == most else size
