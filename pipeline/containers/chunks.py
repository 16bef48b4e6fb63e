"""Formats whose header gives the number of bytes that follow: AIFF, 8SVX, CAF, AU, VOC, NIST, AVR."""

import re
import struct

from wavmill.pipeline.containers.base import Extent, Reader, cut
from wavmill.pipeline.containers.riff import MANY, WRAPS, is_piped

UNKNOWN = (1 << 64) - 1  # of CAF: the data go on to the end
VOC_END = 0
AIFF_MARKS = (b"AIFFCOMM", b"AIFCFVER", b"AIFCCOMM")
AU_MARKS = (b".snd\0\0\0",)
CAF_MARKS = (b"caff\0\1\0\0desc", b"caff\0\2\0\0desc")
AIFF_MARK = rb"(?s:FORM....(?:AIFF|AIFC)(?:COMM|FVER))"
AU_MARK = rb"(?s:\.snd\0\0[\0-\x04].....\0\0\0[\x01-\x1b]\0[\0-\x0b]..\0\0\0[\x01-\x40])"


def form(reader: Reader) -> Extent | None:
    """AIFF, AIFC (the sound is SSND) and the Amiga's 8SVX and 16SV (BODY)."""
    kind = reader.head[8:12]
    if kind not in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return None
    name = "8SVX" if kind[2:] in (b"VX", b"SV") else "AIFF"
    claimed, at = struct.unpack_from(">I", reader.head, 4)[0], 12
    for _ in range(MANY):
        chunk = reader.at(at, 8)
        if len(chunk) < 8:
            break
        size = struct.unpack_from(">I", chunk, 4)[0]
        if chunk[:4] in (b"SSND", b"BODY"):
            end = at + 8 + size
            if is_piped(size) or (chunk[:4] == b"SSND" and size <= 8):
                return Extent(name, marks=AIFF_MARKS)
            if end > reader.size:
                return cut(name, end, reader.size)
            riff_end = 8 + claimed
            return Extent(
                name, max(end, riff_end) if riff_end <= reader.size else end, "", end if name == "8SVX" else None
            )
        at += 8 + size + size % 2
    return Extent(name) if is_piped(claimed) else cut(name, 8 + claimed, reader.size)


def caf(reader: Reader) -> Extent | None:
    """Apple's Core Audio Format: sizes of 64 bits."""
    if reader.head[4:6] not in (b"\0\1", b"\0\2"):
        return None
    at, heard = 8, False
    for _ in range(MANY):
        chunk = reader.at(at, 12)
        if len(chunk) < 12 or not (chunk[:4].isalnum() or chunk[:4].strip().isalnum()):
            break
        size = struct.unpack_from(">Q", chunk, 4)[0]
        if chunk[:4] == b"caff":
            break
        if chunk[:4] == b"data":
            heard = True
            if size == UNKNOWN:
                return Extent("CAF", marks=CAF_MARKS)
        if at + 12 + size > reader.size:
            if chunk[:4] not in (b"data", b"pakt", b"desc", b"kuki") and heard:
                break
            return cut("CAF", at + 12 + size, reader.size)
        at += 12 + size
    return Extent("CAF", at) if heard else cut("CAF", at + 12, reader.size, "its sound begins after")


def au(reader: Reader) -> Extent | None:
    """Sun's and NeXT's .snd."""
    order = ">" if reader.head[:4] == b".snd" else "<"
    if len(reader.head) < 24:
        return None
    begin, size = struct.unpack_from(order + "II", reader.head, 4)
    if begin < 24 or begin > 1 << 24:
        return None
    if is_piped(size):
        return Extent("AU", marks=AU_MARKS)
    end = begin + size
    if end > reader.size:
        return cut("AU", end, reader.size)
    if reader.size - end >= WRAPS:
        true_end = end + (reader.size - end) // WRAPS * WRAPS
        return Extent("AU", true_end, "", true_end, 12, reader.head[:8] + b"\xff\xff\xff\xff")
    return Extent("AU", end)


def voc(reader: Reader) -> Extent | None:
    """Creative Voice: blocks with sizes of 24 bits, and an end mark."""
    if len(reader.head) < 26:
        return None
    at = struct.unpack_from("<H", reader.head, 20)[0]
    for _ in range(MANY):
        block = reader.at(at, 4)
        if not block:  # the end mark may be missing
            return Extent("VOC", at, "", at)
        if block[0] == VOC_END:
            return Extent("VOC", at + 1, "", at + 1)
        if len(block) < 4 or block[0] > 9:
            return Extent("VOC", at, "", at)
        size = int.from_bytes(block[1:], "little")
        if not size and block[0] in (1, 9):  # written to a pipe
            return Extent("VOC", marks=(b"Creative Voice File\x1a",))
        if at + 4 + size > reader.size:
            return cut("VOC", at + 4 + size, reader.size)
        at += 4 + size
    return Extent("VOC")


def nist(reader: Reader) -> Extent | None:
    """NIST's SPHERE: a header of text."""
    text = reader.head
    match = re.match(rb"NIST_1A\n\s*(\d+)\n", text)
    if match is None:
        return None
    facts = dict(re.findall(rb"(sample_count|sample_n_bytes|channel_count) -i (\d+)", text[: int(match[1])]))
    if len(facts) < 2 or b"sample_n_bytes" not in facts or b"shorten" in text[: int(match[1])]:
        return Extent("NIST")
    frames = int(facts.get(b"sample_count", 0))
    end = int(match[1]) + frames * int(facts[b"sample_n_bytes"]) * int(facts.get(b"channel_count", 1))
    if not frames:
        return Extent("NIST")
    return cut("NIST", end, reader.size) if end > reader.size else Extent("NIST", end, "", end)


def avr(reader: Reader) -> Extent | None:
    """Audio Visual Research: a header of 128 bytes."""
    if len(reader.head) < 128:
        return None
    channels = 2 if reader.head[12:14] == b"\xff\xff" else 1
    bits, frames = struct.unpack_from(">H", reader.head, 14)[0], struct.unpack_from(">I", reader.head, 26)[0]
    end = 128 + frames * channels * (bits // 8)
    if not frames:
        return Extent("AVR")
    return cut("AVR", end, reader.size) if end > reader.size else Extent("AVR", end, "", end)
