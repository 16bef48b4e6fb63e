"""Damaged files of every container give sound or a reject with its reason, never a crash of what decodes them."""

import io
import os
from collections.abc import Iterator

import numpy as np
import pytest
from chaos import CHAOS
from container_files import FORMATS, whole

from pipeline.decode import Clip, parts_of
from pipeline.errors import Reject
from pipeline.ffmpeg import _Seeking
from pipeline.seekable import Seekable

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


@pytest.mark.parametrize("offset", [-1, -(1 << 40), 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 70])
@pytest.mark.parametrize("whence", [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
@pytest.mark.parametrize("kind", ["file", "pieces", "memory"])
def test_a_place_that_a_damaged_header_names_and_that_no_file_has_is_no_crash(offset, whence, kind, tmp_path):
    (tmp_path / "sound").write_bytes(bytes(100))
    with (tmp_path / "sound").open("rb") as file:
        ways = {"file": file, "pieces": io.BufferedReader(Raw(bytes(100))), "memory": io.BytesIO(bytes(100))}
        assert isinstance(_Seeking(ways[kind]).seek(offset, whence), int)


def test_a_fault_of_the_disk_while_seeking_stays_one():
    class Failing(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        _Seeking(Failing()).seek(0)
