"""Ogg, whatever is in it: pages, streams that run side by side, sounds one after another (RFC 3533)."""

import re

from wavmill.pipeline.containers.base import Extent, Reader

PAGE_BYTES, HEAD_BYTES = 65_307, 282  # the largest: of a page, of what stands before its sound
FIRST, LAST = 2, 4  # flags of a page: the first, the last of a stream (section 6)
TAILS_BYTES = (PAGE_BYTES, 1 << 20, 8 << 20)  # where the last pages are looked for
SOUNDS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"fLaC", b"Speex   ", b"PCM     ", b"CELT    ")
PAGE = re.compile(rb"OggS\0[\0-\x07]")


def ogg(reader: Reader) -> Extent | None:
    """A stream of sound whose last page does not say that it is the last one is not all there."""
    first = first_pages(reader)
    if not first:
        return None
    others = {page[14:18] for page in first if not payload(page).startswith(SOUNDS)}
    for window in TAILS_BYTES:
        start = max(0, reader.size - window)
        data, last, end, broken = reader.at(start, window), {}, 0, False
        for match in PAGE.finditer(data):
            if match.start() < end:
                continue  # inside of a page
            page = data[match.start() : match.start() + HEAD_BYTES]
            end = match.start() + page_bytes(page)
            broken = end > len(data)
            if page[14:18] not in others:
                last[page[14:18]] = page
        if broken:
            return Extent("Ogg", None, "its last page breaks off")
        if last:
            if not all(page[5] & LAST for page in last.values()):
                return Extent("Ogg", None, "its last page is not the end of the stream")
            return Extent("Ogg", start + end)
        if not start:
            break
    return Extent("Ogg")


def first_pages(reader: Reader) -> list[bytes]:
    """The pages that a file begins with and that each begin a stream."""
    pages, at = [], 0
    while (page := page_at(reader, at)) and page[5] & FIRST:
        pages.append(page)
        at += len(page)
    return pages


def sounds_in(reader: Reader) -> int:
    """How many streams of sound run side by side at the beginning."""
    return sum(payload(page).startswith(SOUNDS) for page in first_pages(reader))


def page_at(reader: Reader, at: int) -> bytes:
    """The page that begins at a byte; b"" where none does."""
    page = reader.at(at, HEAD_BYTES)
    if page[:5] != b"OggS\0" or len(page) < 27:
        return b""
    length = page_bytes(page)
    page = reader.at(at, length)
    return page if len(page) == length else b""


def payload(page: bytes) -> bytes:
    return page[27 + page[26] :]


def page_bytes(page: bytes) -> int:
    """How long a page is, by its table of segments; more than there is when the table is cut."""
    if len(page) < 27:
        return len(page) + 1
    segments = page[27 : 27 + page[26]]
    return 27 + page[26] + sum(segments) if len(segments) == page[26] else len(page) + 1
