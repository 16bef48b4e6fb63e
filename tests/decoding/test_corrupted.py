"""Damaged files of every container give sound or a reject with its reason, never a crash of what decodes them."""

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from chaos import CHAOS
from container_files import FORMATS, whole

from wavmill.pipeline.decoding.decode import Clip, parts_of
from wavmill.pipeline.decoding.decoders import _Careful, _check
from wavmill.pipeline.decoding.ffmpeg import _Seeking
from wavmill.pipeline.decoding.seekable import Seekable
from wavmill.pipeline.errors import Reject

CLIP = Clip(min_s=0, max_s=3600)
EACH = 400 if CHAOS else 12  # damaged files of each container
HEADER_BYTES = 2000


class Raw(Seekable):
    """Bytes as the decoding process gets those that are fetched piece by piece."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self.data = data

    def readinto(self, into: memoryview) -> int:
        piece = self.data[self.at : self.at + len(into)]
        into[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def damaged(data: bytes, lots: np.random.Generator) -> Iterator[bytes]:
    """Cut, with other bytes in its header or anywhere, with a stretch of ones, or of zeros."""
    for number in range(EACH):
        new, at = bytearray(data), int(lots.integers(len(data)))
        if number % 5 == 0:
            del new[at:]
        elif number % 5 in (1, 2):
            most = min(len(new), HEADER_BYTES) if number % 5 == 1 else len(new)
            for _ in range(lots.integers(1, 30)):
                new[lots.integers(most)] = lots.integers(256)
        else:
            end = at + int(lots.integers(1, 5000 if number % 5 == 3 else 64))
            new[at:end] = (b"\0" if number % 5 == 3 else b"\xff") * len(new[at:end])
        yield bytes(new)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_gives_sound_or_a_reject(name, tmp_path):
    """Read as a file, and as bytes that come in pieces; anything but a Reject would be a crash."""
    path = tmp_path / "sound"
    for data in damaged(whole(name), np.random.default_rng(len(name))):
        path.write_bytes(data)
        with path.open("rb") as file:
            for way in (file, io.BufferedReader(Raw(data))):
                try:
                    assert all(part.reject is None or part.reject.reason for part in parts_of(way, CLIP, 16_000))
                except Reject as reject:
                    assert reject.reason and "Traceback" not in reject.message


def ways_to(data: bytes, path: Path) -> dict[str, BinaryIO]:
    """The same bytes as a file on a disk, as one that is fetched in pieces, and in memory."""
    path.write_bytes(data)
    return {"file": path.open("rb"), "pieces": io.BufferedReader(Raw(data), 16), "memory": io.BytesIO(data)}


@pytest.mark.parametrize("offset", [-1, -70, -(1 << 40), 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 70])
@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
@pytest.mark.parametrize("decoder", [_Seeking, _Careful])
def test_what_is_read_after_a_place_that_no_file_has_is_the_same_wherever_the_bytes_are(
    offset, whence, decoder, tmp_path
):
    """A damaged header names such places; _Seeking is FFmpeg's file, _Careful is libsndfile's."""
    data, read = bytes(range(100)), {}
    for name, file in ways_to(data, tmp_path / "sound").items():
        with file:
            handle = decoder(file)
            handle.seek(50)
            handle.seek(offset, whence)
            assert getattr(handle, "error", None) is None
            read[name] = (file.tell(), file.read(3))
    assert len(set(read.values())) == 1, read


@pytest.mark.parametrize("name", ["AIFF", "AIFC", "CAF", "CAF, ALAC", "W64", "WMA", "WMV"])
def test_a_size_in_a_header_that_leads_out_of_the_file_gives_the_same_wherever_the_bytes_are(name, tmp_path):
    """Eight bytes of the header, further on each time, as what a size overflows to."""
    data = whole(name)
    for at in range(0, 120, 1 if CHAOS else 2):
        for size in (b"\xff" * 8, b"\x80" + b"\0" * 7, b"\0" * 7 + b"\x80"):
            new = data[:at] + size + data[at + 8 :]
            pieces, memory = (outcome(file) for file in (io.BufferedReader(Raw(new)), io.BytesIO(new)))
            assert pieces == memory, f"{size!r} at {at}"


def outcome(file: BinaryIO) -> list[str]:
    """What becomes of a sound, by reasons and the bytes of its samples."""
    try:
        parts = list(parts_of(file, CLIP, 16_000))
    except Reject as reject:
        return [reject.reason]
    return [part.reject.reason if part.reject else part.audio.tobytes().hex() for part in parts]


@pytest.mark.parametrize("decoder", [_Seeking, _Careful])
def test_a_fault_of_the_disk_while_seeking_stays_one(decoder):
    class Failing(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise OSError(errno.EIO, "Input/output error")

    handle = decoder(Failing())
    with pytest.raises(OSError, match="Input/output"):
        handle.seek(0)
        _check(handle)
