"""Check that a sound is complete, and the only one in its file, which decoders do not report.

libsndfile and FFmpeg do not report a WAV, Ogg or MP3 that ends too early, and both stop after the first of several
sounds in one file, or decode the second one's header as sound. This is found by the lengths in containers
(pipeline/containers), and by searching for further headers. docs/containers.md lists the containers.
"""

import re
from typing import Any

from wavmill.pipeline.containers import extent_of, first_of, second_at
from wavmill.pipeline.containers.base import Extent, Reader, handle_of, id3_bytes, size_of
from wavmill.pipeline.containers.flac import continues_past_header
from wavmill.pipeline.containers.ogg import TAILS_BYTES, first_pages, sounds_in
from wavmill.pipeline.errors import Reject

__all__ = ["check_structure", "declared_duration_s", "handle_of", "has_unread_sound", "size_of"]

MP3_SILENCE_SAMPLES = 529 + 2 * 1152  # the most padding of encoders before and behind a sound, which decoders drop
BEGINS = {
    "OGG": (b"OggS\0\2",),
    "FLAC": (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"),  # and the block that describes it (RFC 9639, section 8)
}
TELLS_LENGTH = (  # FFmpeg's names of containers with a length in the header; for others it guesses
    "mov,mp4", "avi", "asf", "tta", "wv", "flv", "aiff", "caf", "ape", "mpc", "tak", "mxf",
)  # fmt: skip


def check_structure(reader: Reader) -> Extent | None:
    """The extent of the sound by its container. Reject ``truncated`` or ``joined``; None for an unknown container."""
    extent = extent_of(reader)
    if extent is None:
        return None
    if extent.missing:
        raise Reject("truncated", f"{extent.container}: {extent.missing}")
    if (place := second_at(reader, extent)) is not None:
        raise Reject("joined", f"a second sound begins at byte {place:,}; split it")
    return extent


def has_unread_sound(sound: Any, reader: Reader) -> bool:
    """Whether a FLAC or Ogg has more sound than libsndfile reads, so that FFmpeg is to read it.

    That is: concatenated sounds, parallel streams, a FLAC that continues behind the length in its header. For a long
    object that is no local file only the end is read. Parallel streams begin together.
    """
    marks = BEGINS.get(sound.format)
    if marks is None:
        return False
    if sound.format == "FLAC":
        first = id3_bytes(reader.head) + 4
        return (reader.cheap and first_of(marks, reader, first) is not None) or continues_past_header(reader)
    pages = first_pages(reader)
    if sounds_in(reader) > 1:
        return True
    if reader.cheap:
        return first_of(marks, reader, sum(map(len, pages))) is not None
    tail = reader.at(max(0, reader.size - TAILS_BYTES[0]), TAILS_BYTES[0])
    last = tail[max(0, tail.rfind(b"OggS\0")) :]
    return last[14:18] not in {page[14:18] for page in pages}  # their numbers


def declared_duration_s(container: Any, stream: Any, reader: Reader) -> float:
    """The length of the sound by its container; 0 when it has none, or FFmpeg guesses it from the bit rate.

    Matroska's is the end time of the sound, from the start of the film.
    """
    kind = container.format.name
    if "matroska" in kind:
        said = stream.metadata.get("DURATION", "")
        if match := re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", said):
            hours, minutes, seconds = (float(part) for part in match.groups())
            return 3600 * hours + 60 * minutes + seconds
        return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0  # FFmpeg counts microseconds
    if kind.startswith(TELLS_LENGTH):
        return float((stream.duration or 0) * stream.time_base)
    if kind == "mp3":
        rate_hz = stream.codec_context.sample_rate
        samples = _frames_of_mp3(reader) * (1152 if rate_hz >= 32_000 else 576)
        return float(max(0, samples - MP3_SILENCE_SAMPLES) / max(1, rate_hz))
    return 0.0


def _frames_of_mp3(reader: Reader) -> int:
    """The number of frames by the header of Xing or Fraunhofer in the first frame; 0 if there is none.

    FFmpeg's own number is a guess when the file is not as long as that header says.
    """
    start = reader.at(id3_bytes(reader.head), 256)
    for name, count_at, flag in ((b"Xing", 8, 1), (b"Info", 8, 1), (b"VBRI", 14, 0)):
        place = start.find(name)
        if place >= 0 and (not flag or (start[place + 7 : place + 8] and start[place + 7] & flag)):
            return int.from_bytes(start[place + count_at : place + count_at + 4], "big")
    return 0
