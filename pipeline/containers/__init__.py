"""Find where a container ends by its own sizes, and whether another sound begins in the file. Nothing is decoded."""

import re
from collections.abc import Callable, Iterator

from wavmill.pipeline.containers.asf import HEADER, asf
from wavmill.pipeline.containers.base import Extent, Reader
from wavmill.pipeline.containers.chunks import AIFF_MARK, AU_MARK, au, avr, caf, form, nist, voc
from wavmill.pipeline.containers.flac import flac
from wavmill.pipeline.containers.matroska import matroska
from wavmill.pipeline.containers.mp4 import mp4
from wavmill.pipeline.containers.ogg import ogg
from wavmill.pipeline.containers.others import flv, mpegts, sox, tta, wavpack
from wavmill.pipeline.containers.riff import W64_RIFF, rf64, riff, w64

SEARCHED_BYTES = 1 << 20  # at a time
OVERLAP_BYTES = 64  # longer than any mark
BEGINNINGS: tuple[tuple[bytes, Callable[[Reader], Extent | None]], ...] = (
    (b"RIFF", riff), (b"RF64", rf64), (b"BW64", rf64), (W64_RIFF, w64), (b"FORM", form), (b"caff", caf),
    (b".snd", au), (b"dns.", au), (b"Creative Voice File\x1a", voc), (b"NIST_1A", nist), (b"2BIT", avr),
    (b"OggS", ogg), (b"fLaC", flac), (HEADER, asf), (b"\x1a\x45\xdf\xa3", matroska), (b"FLV", flv), (b"TTA1", tta),
    (b"wvpk", wavpack), (b".SoX", sox), (b"XoS.", sox), (b"G", mpegts),
)  # fmt: skip
SECOND = re.compile(  # unambiguous first bytes of any kind of sound
    rb"|".join([
        rb"RIFF....(?:WAVE|AVI )", rb"(?:RF64|BW64)....WAVEds64", re.escape(W64_RIFF), AIFF_MARK,
        rb"FORM....(?:8SVX|16SV)", AU_MARK, rb"caff\0[\x01\x02]\0\0desc", rb"Creative Voice File\x1a", rb"NIST_1A\n",
        rb"2BIT.{8}(?:\0\0|\xff\xff)\0[\x08\x10]", rb"fLaC[\0\x80]\0\0\x22", rb"OggS\0\x02", re.escape(HEADER),
        rb"\x1a\x45\xdf\xa3[\x80-\xff\x01\x40]", rb"\0\0\0[\x10-\x40]ftyp", rb"FLV\x01[\x01\x04\x05]\0\0\0\x09",
        rb"TTA1[\x01\x02]\0", rb"\.SoX[\x1c-\xff]\0\0\0", rb"wvpk....[\x02-\x10]\x04......\0\0\0\0",
    ]),
    re.DOTALL,
)  # fmt: skip
SELVES = (  # first bytes of containers without sizes: WTV, NUT, RealMedia, AMR
    bytes.fromhex("b7d800203749da11a64e0007e95ead8d"),
    b"nut/multimedia container\0",
    b".RMF\0\0\0",
    b"#!AMR\n",
    b"#!AMR-WB\n",
)


def extent_of(reader: Reader) -> Extent | None:
    """The extent of a file by its structure; None for an unknown kind."""
    head = reader.head
    for mark, walk in BEGINNINGS:
        if head.startswith(mark):
            return walk(reader)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return mp4(reader)
    if head[:3] == b"ID3":
        return flac(reader)
    if head[4:5] == b"G":
        return mpegts(reader)
    return next((Extent("other", marks=(mark,)) for mark in SELVES if head.startswith(mark)), None)


def second_at(reader: Reader, extent: Extent) -> int | None:
    """Where another sound begins: behind the end, or, without a known end, at another header of this kind."""
    if extent.end is None:
        if not extent.marks or not reader.cheap:
            return None
        return first_of(extent.marks, reader, 12)
    if extent.marks:
        return extent.end
    if extent.end >= reader.size:
        return None
    for at, piece in _pieces(reader, extent.end):
        if match := SECOND.search(piece):
            return at + match.start()
    return None


def first_of(marks: tuple[bytes, ...], reader: Reader, start: int) -> int | None:
    """The approximate position of the first of several marks, from a byte on."""
    shared = marks[0][:4] if all(mark[:4] == marks[0][:4] for mark in marks) else b""
    for at, piece in _pieces(reader, start):
        if shared not in piece:  # one search in place of several
            continue
        found = [place for mark in marks if (place := piece.find(mark)) >= 0]
        if found:
            return at + min(found)
    return None


def _pieces(reader: Reader, at: int) -> Iterator[tuple[int, bytes]]:
    """The file from a byte on, in pieces that overlap by more than the longest mark."""
    while at < reader.size:
        yield at, reader.at(at, SEARCHED_BYTES + OVERLAP_BYTES)
        at += SEARCHED_BYTES
