"""MP4, M4A, MOV, 3GP (ISO 14496-12): boxes with their sizes, in fragments or not."""

import struct

from wavmill.pipeline.containers.base import Extent, Reader, cut

BEGIN = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
INSIDE = (b"moof", b"mfra", b"sidx", b"ssix", b"emsg", b"prft", b"udta", b"uuid", b"meta", b"pdin", b"PICT", b"junk")
BOXES = (*BEGIN, *INSIDE)
NEEDED = (b"ftyp", b"moov", b"mdat", b"moof")
MANY = 1_000_000  # boxes
SIDX_BYTES = 1 << 20  # of an index of fragments: a longer one is not read
NAME = "MP4"


def mp4(reader: Reader) -> Extent | None:
    """Every box at the top is there, with an index (moov) for the sound, and with only one."""
    if reader.head[4:8] not in BEGIN or len(reader.head) < 12:
        return None
    seen: list[bytes] = []
    at, promised = 0, 0
    for _ in range(MANY):
        box = reader.at(at, 16)
        kind = box[4:8]
        if len(box) < 8 or kind not in BOXES:
            break
        size = struct.unpack_from(">I", box)[0]
        if size == 1 and len(box) == 16:
            size = struct.unpack_from(">Q", box, 8)[0]
        if size == 0:
            size = reader.size - at
        if size < 8 or (at and kind == b"ftyp" and b"moov" in seen):  # the second begins here
            break
        if at + size > reader.size:
            if kind not in NEEDED:  # what is cut is no sound
                break
            return cut(NAME, at + size, reader.size)
        if kind == b"moov" and kind in seen:
            return Extent(NAME, at, marks=(b"moov",))
        if kind == b"sidx":
            promised = max(promised, _end_by_sidx(reader.at(at, min(size, SIDX_BYTES)), at + size))
        seen.append(kind)
        at += size
    if promised > reader.size:
        return cut(NAME, promised, reader.size)
    if not {b"moov", b"moof"} & {*seen}:
        if b"ftyp" not in seen:
            return None if b"mdat" not in seen else Extent(NAME, at, "its index (moov) is not there")
        return Extent(NAME, at, "its index (moov) is not there")
    fragments = [kind for kind in seen if kind in (b"moof", b"mdat")]
    if fragments and fragments[-1] == b"moof":
        return Extent(NAME, at, "it ends before the data of its last fragment")
    return Extent(NAME, at)


def is_fragmented(reader: Reader) -> bool:
    """Whether there is a fragment (moof) among the boxes at the top."""
    at = 0
    for _ in range(MANY):
        box = reader.at(at, 16)
        if len(box) < 8 or box[4:8] not in BOXES:
            return False
        if box[4:8] == b"moof":
            return True
        size = struct.unpack_from(">I", box)[0]
        if size == 1 and len(box) == 16:
            size = struct.unpack_from(">Q", box, 8)[0]
        if size < 8:
            return False
        at += size
    return False


def _end_by_sidx(box: bytes, end: int) -> int:
    """Where the last fragment ends that an index of fragments lists (ISO 14496-12, 8.16.3); 0 when it is cut."""
    if len(box) < 32:
        return 0
    wide = box[8] > 0
    at = 20 + (16 if wide else 8)
    first = struct.unpack_from(">Q" if wide else ">I", box, at - (8 if wide else 4))[0]
    if len(box) < at + 4:
        return 0
    count = struct.unpack_from(">H", box, at + 2)[0]
    if len(box) < at + 4 + 12 * count:
        return 0
    return int(end + first + sum(struct.unpack_from(">I", box, at + 4 + 12 * i)[0] & 0x7FFF_FFFF for i in range(count)))
