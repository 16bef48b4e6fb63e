"""RIFF and its kin: WAV, RF64 and BW64, Sony's W64, AVI. Chunks with their sizes, of 32 or 64 bits."""

import struct

from wavmill.pipeline.containers.base import Extent, Reader, cut

WRAPS = 1 << 32  # a size of 32 bits starts again from zero
PIPED = ((0x7FFF_0000, 0x8001_0000), (0xFFFF_0000, WRAPS))  # placeholders of writers to a pipe, which cannot seek back
MANY = 10_000  # chunks, before one gives up
W64_RIFF, W64_WAVE = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", b"wave\xf3\xac\xd3\x11"
W64_DATA = b"data\xf3\xac\xd3\x11"
WAV_MARKS = (b"WAVEfmt ", b"WAVEJUNK", b"WAVEbext", b"WAVELIST", b"WAVEds64")


def is_piped(size: int) -> bool:
    """Whether a size is a placeholder of a writer that did not know it."""
    return size == 0 or any(low <= size < high for low, high in PIPED)


def riff(reader: Reader) -> Extent | None:
    """WAV or AVI; None of other kinds of RIFF."""
    kind = reader.head[8:12]
    if kind == b"AVI ":
        return avi(reader)
    return wav(reader, "WAV", 12, None) if kind == b"WAVE" else None


def rf64(reader: Reader) -> Extent | None:
    """RF64 and BW64: a WAV whose sizes stand in a chunk of their own, as 64 bits."""
    head = reader.head
    if head[8:12] != b"WAVE" or head[12:16] != b"ds64" or len(head) < 44:
        return None
    return wav(reader, "RF64", 12, struct.unpack_from("<Q", head, 28)[0])


def wav(reader: Reader, name: str, at: int, data64: int | None) -> Extent:
    """``data64``: the size of the sound that a chunk of 64 bits gives."""
    claimed, form = struct.unpack_from("<I", reader.head, 4)[0], b""
    for _ in range(MANY):
        chunk = reader.at(at, 8)
        if len(chunk) < 8:
            return cut(name, 8 + claimed, reader.size) if not is_piped(claimed) else Extent(name)
        size = struct.unpack_from("<I", chunk, 4)[0]
        if chunk[:4] == b"data":
            extent = _wav_data(reader, name, at, size, data64, claimed)
            return extent if extent.sound_end is None else extent._replace(header=_header(form, extent))
        if chunk[:4] == b"fmt ":
            form = reader.at(at + 8, min(size, 4096))
        at += 8 + size + size % 2
    return Extent(name)


def _wav_data(reader: Reader, name: str, at: int, size: int, data64: int | None, claimed: int) -> Extent:
    begin, there = at + 8, reader.size - at - 8
    if data64 is not None:
        if data64 == 0 or data64 >= 1 << 62:  # read it as a WAV that was written to a pipe
            return Extent(name, None, "", reader.size, begin, marks=WAV_MARKS)
        size = data64
    elif is_piped(size):
        return Extent(name, None, "", reader.size if there >= PIPED[1][0] else None, begin, marks=WAV_MARKS)
    end = begin + size
    if size > there:
        return cut(name, end, reader.size)
    if data64 is None and there - size >= WRAPS:
        true_end = begin + size + (there - size) // WRAPS * WRAPS
        return Extent(name, true_end, "", true_end, begin)
    riff_end = 8 + claimed
    return Extent(name, max(end, riff_end) if data64 is None and riff_end <= reader.size else end)


def _header(form: bytes, extent: Extent) -> bytes:
    """The beginning of an RF64 (EBU Tech 3306) with a sound of the right size."""
    size = (extent.sound_end or 0) - extent.sound_start
    chunks = b"WAVEds64" + struct.pack("<IQQQI", 28, size + 72 + len(form), size, 0, 0)
    chunks += b"fmt " + struct.pack("<I", len(form)) + form + b"data\xff\xff\xff\xff"
    return b"RF64\xff\xff\xff\xff" + chunks


def w64(reader: Reader) -> Extent | None:
    """Sony Wave64: chunks named by 16 bytes, sizes of 64 bits that count their own header."""
    if reader.head[24:32] != W64_WAVE:
        return None
    at, form = 40, b""
    for _ in range(MANY):
        chunk = reader.at(at, 24)
        if len(chunk) < 24:
            return cut("W64", at + 24, reader.size)
        size = struct.unpack_from("<Q", chunk, 16)[0]
        if chunk[:8] == W64_DATA:
            break
        if chunk[:4] == b"fmt ":
            form = reader.at(at + 24, min(size - 24, 4096))
        at += max(24, size) + -size % 8
    else:
        return Extent("W64")
    if size <= 24 or size >= 1 << 62:  # written to a pipe
        extent = Extent("W64", None, "", reader.size, at + 24, marks=(W64_RIFF,))
        return extent._replace(header=_header(form, extent))
    end = at + size
    return cut("W64", end, reader.size) if end > reader.size else Extent("W64", end, "", end)


def avi(reader: Reader) -> Extent:
    """AVI: lists of chunks; beyond 1 GiB further lists named AVIX follow the first."""
    at, name = 0, "AVI"
    for _ in range(MANY):
        chunk = reader.at(at, 12)
        if (
            len(chunk) < 12
            or chunk[:4] != b"RIFF"
            or chunk[8:] not in (b"AVI ", b"AVIX")
            or (at and chunk[8:] == b"AVI ")
        ):
            break
        size = struct.unpack_from("<I", chunk, 4)[0]
        if is_piped(size):
            return Extent(name, marks=(b"AVI LIST",))
        inner, end = at + 12, at + 8 + size
        while inner < min(end, reader.size):  # an index follows the list of frames; it is optional
            inside = reader.at(inner, 12)
            length = struct.unpack_from("<I", inside, 4)[0] if len(inside) == 12 else 0
            if inside[:4] == b"LIST" and inside[8:] == b"movi" and not is_piped(length):
                if inner + 8 + length > reader.size:
                    return cut(name, inner + 8 + length, reader.size)
                break
            inner += 8 + length + length % 2
        else:
            if end > reader.size:
                return cut(name, end, reader.size)
        at = end + size % 2
    return Extent(name, min(at, reader.size))
