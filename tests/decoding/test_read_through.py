"""Before a sound is blamed for what a decoder says of it, the disk is asked whether it can be read at all."""

import errno
import io

import pytest

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import Reject, Stopped


class Sick(io.FileIO):
    """A file whose handle is a good one, and whose disk gives up somewhere behind its first bytes."""

    def readinto(self, into):
        raise OSError(errno.EIO, "Input/output error")

    read = readall = readinto


@pytest.mark.parametrize("data", [b"this is no sound", b"RIFF" + bytes(500)], ids=["no sound", "a broken one"])
@pytest.mark.parametrize("ask", ["parts", "length"])
def test_a_disk_that_cannot_be_read_is_no_reject(tmp_path, data, ask):
    def decode(file):
        return fence.length_s(file) if ask == "length" else list(fence.parts_of(file, Clip(), 16_000))

    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(Reject):
        decode(file)
    with Sick(str(path)) as file, pytest.raises(Stopped):
        decode(file)
