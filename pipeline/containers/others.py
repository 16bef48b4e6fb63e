"""FLV, True Audio, WavPack and MPEG-TS; and what other containers begin with."""

import struct

from wavmill.pipeline.containers.base import Extent, Reader, cut

TS_BYTES = (188, 192, 204)  # of a packet: plain, with a time before it, with check bytes behind it
FLV_TAGS = (8, 9, 18)  # sound, pictures, words


def flv(reader: Reader) -> Extent | None:
    """Flash Video: tags, each followed by its own length."""
    if reader.head[3:4] != b"\1" or len(reader.head) < 13:
        return None
    at = struct.unpack_from(">I", reader.head, 5)[0]
    if not reader.cheap:
        return Extent("FLV")
    while True:
        head = reader.at(at, 15)  # the length of the tag before, and the head of this one
        if len(head) <= 4:
            return Extent("FLV", reader.size)
        if head[4] & 0x1F not in FLV_TAGS:
            return Extent("FLV", at + 4)
        end = at + 15 + int.from_bytes(head[5:8], "big")
        if end > reader.size or len(head) < 15:
            return cut("FLV", end, reader.size)
        at = end


def tta(reader: Reader) -> Extent | None:
    """True Audio: a table of all frames' lengths."""
    if len(reader.head) < 22:
        return None
    rate_hz, samples = struct.unpack_from("<II", reader.head, 10)
    frame = 256 * rate_hz // 245
    count = -(-samples // frame) if frame else 0
    table = reader.at(22, 4 * count)
    if len(table) < 4 * count or not count:
        return cut("TTA", 22 + 4 * count, reader.size)
    end = 22 + 4 * count + 4 + sum(struct.unpack(f"<{count}I", table))
    return cut("TTA", end, reader.size) if end > reader.size else Extent("TTA", end)


def wavpack(reader: Reader) -> Extent | None:
    """WavPack: blocks, each with the number of its first sample; the first one says how many there are in all."""
    if len(reader.head) < 32:
        return None
    total = struct.unpack_from("<I", reader.head, 12)[0]
    at, reached = 0, 0
    if not reader.cheap:
        return Extent("WavPack")
    while True:
        head = reader.at(at, 32)
        if len(head) < 32 or head[:4] != b"wvpk":
            break
        size, index, samples = struct.unpack_from("<I", head, 4)[0], *struct.unpack_from("<II", head, 16)
        if index == 0 and reached and samples:
            break  # the second begins here
        if at + 8 + size > reader.size:
            return cut("WavPack", at + 8 + size, reader.size)
        reached = max(reached, index + samples)
        at += 8 + size
    if total not in (0, 0xFFFF_FFFF) and reached < total:
        return Extent("WavPack", at, f"its header promises {total:,} samples, and its blocks have {reached:,}")
    return Extent("WavPack", at)


def sox(reader: Reader) -> Extent | None:
    """SoX's own format: samples of 32 bits, and how many of them."""
    if len(reader.head) < 16:
        return None
    order = "<" if reader.head[:1] == b"." else ">"
    head_bytes, samples = struct.unpack_from(order + "IQ", reader.head, 4)
    if not 0 < samples < 1 << 48:
        return Extent("SoX", marks=(reader.head[:4],))
    end = 4 + head_bytes + 4 * samples
    return cut("SoX", end, reader.size) if end > reader.size else Extent("SoX", end, "", end)


def mpegts(reader: Reader) -> Extent | None:
    """MPEG transport stream: packets of one length, none of which says that it is the last."""
    for length in TS_BYTES:
        lead = 4 if length == 192 else 0
        if all(reader.head[lead + i * length : lead + i * length + 1] == b"G" for i in range(4)):
            rest = reader.size % length
            tail = reader.at(reader.size - rest, rest)
            if rest and tail[lead : lead + 1] == b"G" and reader.at(reader.size - rest - length + lead, 1) == b"G":
                return Extent("MPEG-TS", None, f"its last packet has {rest} of {length} bytes")
            return Extent("MPEG-TS")
    return None
