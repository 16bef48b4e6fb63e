"""Is a sound all there, and is it the only one? What decoders do not say.

Neither libsndfile nor FFmpeg says a word when a WAV, an Ogg or an MP3 ends too early, and libsndfile stops after the
first of several sounds in one file: it is found by what the containers promise, and by where others begin. Not found:
a FLAC whose header promises less than there is.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.errors import Reject

SIZE_OF_SOUND = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_BYTES = 0x7FFF_0000  # from here on a size is what programs write that cannot go back to correct it
OGG_PAGE_BYTES = 65_307  # the largest
OGG_FIRST, OGG_LAST = 2, 4  # flags of a page: the first, the last of a stream (RFC 3533, section 6)
MP3_SILENCE_SAMPLES = 529 + 2 * 1152  # at most: what an encoder puts before and behind a sound, and decoders drop
BEGINS = {
    "OGG": (b"OggS\0\2",),
    "FLAC": (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"),  # and the block that describes it (RFC 9639, section 8)
}
SEARCHED_BYTES = 1 << 20  # at a time
FETCHED_BYTES = 64 << 20  # a longer object that is no file is not read twice to be searched


def check_end(sound: Any, file: BinaryIO) -> None:
    """Raise Reject when a sound that libsndfile opened ends too early."""
    if sound.format == "OGG":
        if not _ends_ogg(file):
            raise Reject("truncated", "its last page is not the end of the stream")
        return
    for claimed, there in SIZE_OF_SOUND.findall(sound.extra_info):
        if int(there) < int(claimed) < UNKNOWN_BYTES:
            said = f"its header promises {int(claimed):,} bytes of sound, and {int(there):,} are there"
            raise Reject("truncated", said)


def check_alone(file: BinaryIO) -> None:
    """Raise Reject when a second WAV or AIFF begins where the first one's container ends."""
    start = _read(file, 0, 8)
    if start[:4] in (b"RIFF", b"FORM"):
        end = 8 + int.from_bytes(start[4:], "little" if start[:4] == b"RIFF" else "big")
        if _read(file, end, 4) == start[:4]:
            raise Reject("joined", f"a second sound begins at byte {end:,}; split it")


def another_begins(sound: Any, file: BinaryIO) -> bool:
    """Whether this FLAC or Ogg has others behind it. Of a long object that is no file only an Ogg's last page is asked.

    Several streams that run side by side, in Ogg, begin together.
    """
    marks = BEGINS.get(sound.format)
    if marks is None:
        return False
    first = 4
    if sound.format == "OGG":
        first = 0
        while (page := _ogg_page(file, first)) and page[5] & OGG_FIRST:
            first += len(page)
    size = size_of(file)
    if size <= FETCHED_BYTES or handle_of(file) is not None:
        return any(mark in piece for piece in _pieces(file, first, size) for mark in marks)
    return sound.format == "OGG" and _last_page(file)[14:18] != _read(file, 14, 4)  # their numbers


def _pieces(file: BinaryIO, at: int, size: int) -> Iterator[bytes]:
    """A file from a byte on, in pieces that overlap by more than the longest mark."""
    while at < size:
        yield _read(file, at, SEARCHED_BYTES + 16)
        at += SEARCHED_BYTES


def _ends_ogg(file: BinaryIO) -> bool:
    page = _last_page(file)
    return len(page) >= 27 and bool(page[5] & OGG_LAST) and len(page) >= _ogg_bytes(page)


def _last_page(file: BinaryIO) -> bytes:
    end = _read(file, max(0, size_of(file) - OGG_PAGE_BYTES), OGG_PAGE_BYTES)
    return end[max(0, end.rfind(b"OggS\0")) :]


def _ogg_page(file: BinaryIO, at: int) -> bytes:
    """The page that begins at a byte; b"" where none does."""
    page = _read(file, at, OGG_PAGE_BYTES)
    return page[: _ogg_bytes(page)] if page[:4] == b"OggS" and len(page) >= 27 else b""


def _ogg_bytes(page: bytes) -> int:
    """How long a page is, by its table of segments."""
    segments = page[27 : 27 + page[26]]
    return 27 + page[26] + sum(segments) if len(segments) == page[26] else len(page) + 1


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    """Bytes from a place in the file, which stays where it was: libsndfile goes on reading there."""
    if (handle := handle_of(file)) is not None:
        return os.pread(handle, size, at)
    before = file.tell()
    file.seek(at)
    data = file.read(size)
    file.seek(before)
    return data


def size_of(file: BinaryIO) -> int:
    """Bytes."""
    if (handle := handle_of(file)) is not None:
        return os.fstat(handle).st_size
    before = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(before)
    return size


def handle_of(file: BinaryIO) -> int | None:
    """The system's handle of a real file; None of anything else that can be read."""
    try:
        return file.fileno()
    except OSError:
        return None


def promised_s(container: Any, file: BinaryIO) -> float:
    """How long the container says its sound is; 0 where it does not say, or FFmpeg but guesses from the bit rate."""
    kind, stream = container.format.name, container.streams.audio[0]
    if "matroska" in kind:
        said = stream.metadata.get("DURATION", "")
        if match := re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", said):
            hours, minutes, seconds = (float(part) for part in match.groups())
            return 3600 * hours + 60 * minutes + seconds
        return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0  # FFmpeg counts microseconds
    if "mp4" in kind:
        return float((stream.duration or 0) * stream.time_base)
    if kind == "mp3":
        rate_hz = stream.codec_context.sample_rate
        samples = _frames_of_mp3(file) * (1152 if rate_hz >= 32_000 else 576)
        return max(0, samples - MP3_SILENCE_SAMPLES) / max(1, rate_hz)
    return 0.0


def _frames_of_mp3(file: BinaryIO) -> int:
    """The count of frames in the first one, where encoders put it (Xing's or Fraunhofer's header); 0 if they did not.

    FFmpeg's own number is a guess when the file is not as long as that header says.
    """
    at = file.tell()
    file.seek(0)
    start = file.read(256)
    if start[:3] == b"ID3":
        size = 0
        for byte in start[6:10]:  # seven bits of each
            size = size << 7 | byte & 0x7F
        file.seek(10 + size)
        start = file.read(256)
    file.seek(at)
    for name, count_at, flag in ((b"Xing", 8, 1), (b"Info", 8, 1), (b"VBRI", 14, 0)):
        place = start.find(name)
        if place >= 0 and (not flag or (start[place + 7 : place + 8] and start[place + 7] & flag)):
            return int.from_bytes(start[place + count_at : place + count_at + 4], "big")
    return 0
