"""MP3, AAC, AC-3, DTS, AMR: formats that consist of frames; the length of a frame by its header."""

KBITS_V1 = {
    3: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # layer I
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
KBITS_V2 = {
    3: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    1: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)  # narrow band, RFC 4867 section 5.3
AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)


def frame_bytes(codec: str, head: bytes) -> int:
    """The length of a frame by its header; 0 when there is no such header, or it has no length."""
    if codec.startswith(("mp3", "mp2", "mp1")):
        return _mpeg(head)
    if codec in ("aac", "aac_latm"):
        return _adts(head) or _latm(head)
    if codec in ("ac3", "eac3"):
        return _ac3(head)
    if codec == "dca" and head[:4] == b"\x7f\xfe\x80\x01" and len(head) >= 8:
        return ((head[5] & 3) << 12 | head[6] << 4 | head[7] >> 4) + 1
    if codec in ("amr_nb", "amrnb") and head:
        return AMR_BYTES[head[0] >> 3 & 15]
    if codec in ("amr_wb", "amrwb") and head:
        return AMR_WB_BYTES[head[0] >> 3 & 15]
    return 0


def alike(codec: str, head: bytes, first: bytes) -> bool:
    """Whether two frame headers can belong to the same sound, to tell frames from random bytes."""
    if codec.startswith(("mp3", "mp2", "mp1")):
        return head[1:2] == first[1:2] and (head + b"\0\0\0")[2] & 0x0C == (first + b"\0\0\0")[2] & 0x0C
    if codec == "aac" and first[:1] == b"\xff":
        return head[1:2] == first[1:2] and (head + b"\0\0\0")[2] & 0xFC == (first + b"\0\0\0")[2] & 0xFC
    return True


def _mpeg(head: bytes) -> int:
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer, kbits, rate, pad = (
        head[1] >> 3 & 3,
        head[1] >> 1 & 3,
        head[2] >> 4,
        head[2] >> 2 & 3,
        head[2] >> 1 & 1,
    )
    if version == 1 or not layer or not 0 < kbits < 15 or rate == 3:
        return 0
    bits = (KBITS_V1 if version == 3 else KBITS_V2)[layer][kbits - 1] * 1000
    rate_hz = RATES_HZ[version][rate]
    if layer == 3:
        return (12 * bits // rate_hz + pad) * 4
    return (72 if version != 3 and layer == 1 else 144) * bits // rate_hz + pad


def _adts(head: bytes) -> int:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def _latm(head: bytes) -> int:
    if len(head) < 3 or head[0] != 0x56 or head[1] & 0xE0 != 0xE0:
        return 0
    return ((head[1] & 0x1F) << 8 | head[2]) + 3


def _ac3(head: bytes) -> int:
    if len(head) < 6 or head[:2] != b"\x0b\x77":
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 0x3F
    if rate == 3 or code >= 2 * len(AC3_KBITS):
        return 0
    kbits = AC3_KBITS[code >> 1]
    return 2 * (2 * kbits, 320 * kbits // 147 + (code & 1), 3 * kbits)[rate]
