"""FLAC (RFC 9639): check that the last frame ends at the length in the header."""

import re
from functools import cache
from typing import NamedTuple

from wavmill.pipeline.containers.base import Extent, Reader, id3_bytes

SYNC = re.compile(rb"\xff[\xf8\xf9]")
TAIL_BYTES, MOST_TAIL_BYTES = 1 << 16, 1 << 23  # bytes at the end that are searched for the last frame
SIZES = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}


class Frame(NamedTuple):
    """Samples [start, stop) of each channel."""

    start: int
    stop: int


class Stream(NamedTuple):
    """The STREAMINFO block (section 8.2)."""

    block_frames: int  # the longest
    frame_bytes: int  # the longest, 0 if it does not say
    total_frames: int  # 0 if it does not say


def flac(reader: Reader) -> Extent | None:
    """FLAC, behind an ID3 tag or not."""
    return Extent("FLAC") if stream_of(reader) else None


def stream_of(reader: Reader) -> Stream | None:
    at = id3_bytes(reader.head)
    data = reader.at(at, 42)
    if data[:4] != b"fLaC" or len(data) < 42 or data[4] & 0x7F or data[5:8] != b"\0\0\x22":
        return None
    block, longest = int.from_bytes(data[10:12], "big"), int.from_bytes(data[15:18], "big")
    return Stream(block, longest, (data[21] & 15) << 32 | int.from_bytes(data[22:26], "big"))


def continues_past_header(reader: Reader) -> bool:
    """Whether there is sound behind the number of samples in the header. False when the header has none."""
    stream = stream_of(reader)
    if stream is None or not stream.total_frames:
        return False
    window = min(MOST_TAIL_BYTES, 2 * stream.frame_bytes + 4096) if stream.frame_bytes else TAIL_BYTES
    tail = reader.at(max(0, reader.size - window), window)
    behind: Frame | None = None  # the bytes behind the current frame
    for match in reversed([*SYNC.finditer(tail)]):
        frame = frame_at(tail, match.start(), stream)
        if frame is None:
            continue
        if frame.stop == stream.total_frames:
            return False
        # one in 256 of the bytes that look like a header has the right check sum, but does not continue another frame
        if (behind is not None and behind.start == frame.stop) or not frame.start:
            return max(frame.stop, behind.stop if behind else 0) > stream.total_frames
        behind = frame
    return False


def frame_at(data: bytes, at: int, stream: Stream) -> Frame | None:
    """The frame whose header begins at this byte (section 9.1), if its checksum is right."""
    head = data[at : at + 16]
    if len(head) < 6 or head[3] & 1 or head[2] >> 4 == 0 or head[2] & 15 == 15:
        return None
    lead = head[4]
    length = 1 if lead < 0x80 else 8 - (lead ^ 0xFF).bit_length()
    if not 1 <= length <= 7 or lead in range(0x80, 0xC0) or len(head) < 4 + length + 1:
        return None
    number = lead if length == 1 else lead & ((1 << (7 - length)) - 1)
    for byte in head[5 : 4 + length]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 0x3F
    end, code = 4 + length, head[2] >> 4
    size = SIZES.get(code, 0)
    if code in (6, 7):
        more = code - 5
        size = int.from_bytes(head[end : end + more], "big") + 1
        end += more
    end += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if end >= len(head) or crc8(head[:end]) != head[end] or not size:
        return None
    start = number if head[1] & 1 else number * stream.block_frames
    return Frame(start, start + size)


def crc8(data: bytes) -> int:
    """The check sum of a frame's header (section 9.1.8)."""
    value = 0
    for byte in data:
        value = _crc8_table()[value ^ byte]
    return value


@cache
def _crc8_table() -> bytes:
    """Of x^8 + x^2 + x + 1."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x107) if value & 0x80 else value << 1
        table.append(value)
    return bytes(table)
