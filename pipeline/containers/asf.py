"""ASF, as WMA and WMV are: objects named by 16 bytes, with sizes of 64 bits."""

import struct

from wavmill.pipeline.containers.base import Extent, Reader, cut

HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
INDEXES = {
    bytes.fromhex(one)
    for one in (
        "90080033b1e5cf1189f400a0c90349cb",
        "d329e2d6da35d111903400a0c90349be",
        "f803b1fead12644c840f2a1d2f7ad48c",
        "d03fb73c4a0c034895 3dedf7b6228f0c".replace(" ", ""),
    )
}
STREAM_END, END_BYTES = bytes.fromhex("24450800"), 12  # the chunk that FFmpeg writes behind the last packet
LIVE = 1  # flag of a live stream: sizes are unknown


def asf(reader: Reader) -> Extent:
    head_bytes = struct.unpack_from("<Q", reader.head, 16)[0] if len(reader.head) >= 24 else 30
    if head_bytes + 50 > reader.size:
        return cut("ASF", head_bytes + 50, reader.size)
    header = reader.at(0, min(head_bytes, 1 << 20))
    at = header.find(PROPERTIES)
    flags, packet_bytes = struct.unpack_from("<II", header, at + 88) if 0 <= at <= len(header) - 104 else (LIVE, 0)
    data = reader.at(head_bytes, 50)
    if data[:16] != DATA:
        return Extent("ASF")
    size, packets = struct.unpack_from("<Q", data, 16)[0], struct.unpack_from("<Q", data, 40)[0]
    if flags & LIVE or size <= 50:
        there = reader.size - head_bytes - 50
        if reader.at(reader.size - END_BYTES, 4) == STREAM_END:
            there -= END_BYTES
        rest = there % packet_bytes if packet_bytes else 0
        if rest and not _behind_packets(reader, head_bytes + 50, packet_bytes):
            return Extent("ASF", None, f"its last packet has {rest:,} of {packet_bytes:,} bytes")
        return Extent("ASF", marks=(HEADER,))
    end = head_bytes + max(size, 50 + packets * packet_bytes)
    while end < reader.size and (thing := reader.at(end, 24))[:16] in INDEXES:
        end += max(24, struct.unpack_from("<Q", thing, 16)[0]) if len(thing) == 24 else 24
    if end > reader.size:
        sound_end = head_bytes + max(size, 50 + packets * packet_bytes)
        return cut("ASF", sound_end, reader.size) if sound_end > reader.size else Extent("ASF", reader.size)
    return Extent("ASF", end)


def _behind_packets(reader: Reader, at: int, packet_bytes: int) -> bool:
    """Whether another object follows the whole packets of a stream."""
    tail = reader.at(max(at, reader.size - (1 << 20)), 1 << 20)
    return any(one in tail for one in (*INDEXES, HEADER))
