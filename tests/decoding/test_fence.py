"""Whatever a sound does to the process that decodes it, it costs that sound only; and no other number changes."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import without_fence
from places import HOSTILE, ROOT

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding import sandbox_process as child
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import Bug, Reject, Stopped
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources.files import Files

RATE_HZ = 16_000


class Distant(io.RawIOBase):
    """Bytes that have no handle and are not in memory: an object of a store that is read in ranges."""

    def __init__(self, data: bytes, fails_from: int | None = None) -> None:
        self.inner, self.fails_from = io.BytesIO(data), fails_from

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.inner.tell()

    def seek(self, offset, whence=os.SEEK_SET):
        return self.inner.seek(offset, whence)

    def readinto(self, into):
        if self.fails_from is not None and self.inner.tell() + len(into) > self.fails_from:
            raise Stopped("the network is gone")
        return self.inner.readinto(into)


@pytest.fixture
def children(monkeypatch):
    """Every child that is started from here on; those of before are put aside."""
    started = []

    class Counted(fence.Child):
        def __init__(self):
            super().__init__()
            started.append(self)

    monkeypatch.setattr(fence, "Child", Counted)
    monkeypatch.setattr(fence, "_idle", [])
    yield started
    for idle in fence._idle:
        idle.end()


@pytest.fixture
def hostile(children, monkeypatch):
    """Children whose libsndfile does what a file asks for."""
    monkeypatch.setattr(child, "SILENCE_S", 2.0)
    monkeypatch.setattr(fence, "sleep", lambda seconds: None)
    monkeypatch.syspath_prepend(HOSTILE)
    return children


def alike(some, others):
    """Two lists of parts are the same, to the bit."""
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one._replace(audio=None, reject=None) == other._replace(audio=None, reject=None)
        assert one.audio.dtype == other.audio.dtype and one.audio.tobytes() == other.audio.tobytes()
        assert str(one.reject) == str(other.reject)


@pytest.fixture(scope="module")
def sounds(tone, wav):
    five = tone(5.3)
    broken = tone(5.3)
    broken[40_000] = np.nan
    coded = {format: wav(five, format=format) for format in ("WAV", "FLAC", "OGG", "MP3")}
    return {**coded, "nan": wav(broken, subtype="FLOAT"), "other rate": wav(tone(5.3, rate_hz=44_100), rate_hz=44_100)}


# ---- the same numbers ---------------------------------------------------------------------------------------------

KINDS = {"bytes": io.BytesIO, "distant": Distant}


@pytest.mark.parametrize("kind", ["bytes", "distant", "file"])
@settings(deadline=None, max_examples=15)
@given(
    name=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "nan", "other rate"]),
    max_s=st.integers(1, 7),
    start_s=st.floats(0, 4),
    length_s=st.none() | st.floats(0.5, 3),
    channel=st.sampled_from(["mean", 0]),
)
def test_behind_the_fence_a_sound_has_the_same_samples(
    sounds, tmp_path_factory, kind, name, max_s, start_s, length_s, channel
):
    clip, end_s = Clip(max_s=max_s, channel=channel), start_s + (length_s or np.inf)
    path = tmp_path_factory.getbasetemp() / f"{name}.sound"
    path.write_bytes(sounds[name])

    def parts(decoder):
        with path.open("rb") if kind == "file" else KINDS[kind](sounds[name]) as file:
            return list(decoder.parts_of(file, clip, RATE_HZ, start_s, end_s))

    alike(parts(fence), parts(decode))


def test_a_stretch_of_a_long_sound_is_the_same_too(sounds):
    for lo, hi in ((0, 2), (2, 4), (4, -1)):
        given = io.BytesIO(sounds["FLAC"]), Clip(max_s=2), RATE_HZ, 0.0, np.inf, lo, hi
        alike(list(fence.parts_of(*given)), list(decode.parts_of(*given)))


@pytest.mark.parametrize("data", [b"", b"not a sound", b"RIFF" * 20], ids=["empty", "text", "half a header"])
def test_a_reason_is_the_same_behind_the_fence(data):
    def why(decoder):
        with pytest.raises(Reject) as caught:
            list(decoder.parts_of(io.BytesIO(data), Clip(), RATE_HZ))
        return caught.value.args

    assert why(fence) == why(decode)


def test_the_length_that_a_header_says_is_the_same(sounds):
    for data in sounds.values():
        assert fence.length_s(io.BytesIO(data)) == decode.length_s(io.BytesIO(data))


def test_parts_before_a_damage_stay_good(wav, tone):
    data = wav(tone(40.0), format="FLAC")
    parts = fence.parts_of(io.BytesIO(data[: len(data) * 3 // 4]), Clip(max_s=2), RATE_HZ)
    assert next(parts).kept_samples == 2 * RATE_HZ
    with pytest.raises(Reject, match="corrupt"):
        list(parts)


def test_one_child_decodes_a_hundred_sounds(children, sounds):
    for _ in range(25):
        for name in ("WAV", "FLAC", "OGG", "nan"):
            list(fence.parts_of(io.BytesIO(sounds[name]), Clip(max_s=3), RATE_HZ))
        with pytest.raises(Reject, match="not_audio"):
            list(fence.parts_of(io.BytesIO(b"no sound"), Clip(), RATE_HZ))
    assert len(children) == 1


def test_a_sound_given_up_in_the_middle_does_not_disturb_the_next(children, sounds):
    parts = fence.parts_of(io.BytesIO(sounds["WAV"]), Clip(max_s=1), RATE_HZ)
    next(parts)
    meanwhile = list(fence.parts_of(io.BytesIO(sounds["FLAC"]), Clip(), RATE_HZ))
    parts.close()
    alike(meanwhile, list(decode.parts_of(io.BytesIO(sounds["FLAC"]), Clip(), RATE_HZ)))
    assert [one.process.poll() is None for one in children] == [False, True]


@settings(deadline=None, max_examples=30)
@given(
    drawn=st.lists(
        st.tuples(
            st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "nan", "other rate", "text", "cut", "absent"]),
            st.sampled_from(["bytes", "distant", "file"]),
            st.floats(0, 4),
        ),
        max_size=20,
    ),
    max_s=st.integers(1, 7),
    most_samples=st.sampled_from([fence.SHORT_BYTES, 100_000]),
)
def test_sounds_that_are_decoded_together_are_what_each_is_alone(sounds, tmp_path_factory, drawn, max_s, most_samples):
    """Whatever they are and whatever is between them, in order, with the same reasons."""
    data = {**sounds, "text": b"not a sound", "cut": sounds["FLAC"][: len(sounds["FLAC"]) // 2], "absent": None}
    clip, folder = Clip(max_s=max_s), tmp_path_factory.getbasetemp()

    def opened(name, kind):
        if data[name] is None or kind != "file":
            return data[name] and KINDS[kind](data[name])
        (folder / f"{name}.some").write_bytes(data[name])
        return (folder / f"{name}.some").open("rb")

    def taken(parts):
        some = []
        try:
            some.extend(parts)
        except Reject as reject:
            return some, reject.args
        return some, None

    given = [((name, kind), opened(name, kind), (start_s, np.inf, 0, -1)) for name, kind, start_s in drawn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fence, "SHORT_BYTES", most_samples)
        together = [(name, taken(parts)) for name, parts in fence.parts_of_each(given, clip, RATE_HZ)]
    alone = [(name, taken(parts)) for name, parts in without_fence(given, clip, RATE_HZ)]
    assert [name for name, _ in together] == [name for name, _ in alone]
    for (_, (some, reason)), (_, (others, why)) in zip(together, alone, strict=True):
        alike(some, others)
        assert reason == why
    for _, file, _ in given:
        if file is not None:
            file.close()


def test_sixteen_short_sounds_are_one_message(children, sounds, monkeypatch):
    asked = []
    ask = child.Child.ask_together
    monkeypatch.setattr(child.Child, "ask_together", lambda *given: asked.append(len(given[2])) or ask(*given))
    monkeypatch.setattr(child.Child, "ask", None)
    given = [(number, io.BytesIO(sounds["FLAC"]), (0.0, np.inf, 0, -1)) for number in range(20)]
    assert [name for name, parts in fence.parts_of_each(iter(given), Clip(), RATE_HZ) if list(parts)] == list(range(20))
    assert asked == [16, 4]


# ---- what a sound does to a decoder -------------------------------------------------------------------------------


def reason(data: bytes) -> Reject:
    with pytest.raises(Reject) as caught:
        list(fence.parts_of(io.BytesIO(data), Clip(), RATE_HZ))
    return caught.value


@pytest.mark.parametrize(
    ("does", "expected", "said"),
    [
        (b"SEGV", "crashed", "the decoder ended by SIGSEGV"),
        (b"EXIT", "crashed", "the decoder ended with exit code 3: Assertion failed: it cannot be"),
        (b"HANG", "hung", "no sign of life for 2 s"),
        (b"ODD", "crashed", "ZeroDivisionError: by a header of zeros (soundfile.py, line"),
    ],
)
def test_a_sound_that_its_second_decoder_dies_of_is_rejected(hostile, does, expected, said):
    reject = reason(does)
    assert reject.reason == expected and said in reject.message
    assert len(hostile) == (1 if does == b"ODD" else 2)


def test_a_sound_that_wants_too_much_memory_is_rejected_by_a_child_that_lives(hostile, sounds):
    reject = reason(b"BOMB")
    assert reject.reason == "too_large" and "MiB" in reject.message
    assert list(fence.parts_of(io.BytesIO(sounds["WAV"]), Clip(), RATE_HZ)) and len(hostile) == 1


def test_bad_sounds_in_a_shard_cost_themselves_only(hostile, tmp_path, tone, wav):
    for number, data in enumerate([b"SEGV", b"", b"HANG", b"BOMB"]):
        (tmp_path / f"{2 * number}.wav").write_bytes(wav(tone(0.5, seed=number)))
        (tmp_path / f"{2 * number + 1}.wav").write_bytes(data)
    source = Files(path=str(tmp_path))
    [objects] = Listing(source, Clip())
    rows = source.read(objects, Clip(), RATE_HZ).to_pylist()
    assert {row["clip"]: row["error"] for row in rows} == {
        **{f"{even}.wav": "" for even in range(0, 8, 2)},
        "1.wav": "crashed", "3.wav": "empty", "5.wav": "hung", "7.wav": "too_large",
    }  # fmt: skip


def test_a_child_that_something_else_kills_is_not_the_fault_of_its_sound(children, sounds):
    parts = fence.parts_of(io.BytesIO(sounds["WAV"]), Clip(max_s=1), RATE_HZ)
    taken = [next(parts), next(parts)]
    os.kill(children[0].process.pid, signal.SIGKILL)
    alike([*taken, *parts], list(decode.parts_of(io.BytesIO(sounds["WAV"]), Clip(max_s=1), RATE_HZ)))
    assert len(children) == 2


def test_children_that_are_killed_again_and_again_stop_the_run_and_reject_nothing(hostile):
    with pytest.raises(Stopped, match="killed 5 times, last by SIGKILL: is there too little memory"):
        list(fence.parts_of(io.BytesIO(b"KILL"), Clip(), RATE_HZ))


def test_a_child_that_does_not_start_rejects_nothing(children, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Bug, match="decoding does not start"):
        list(fence.parts_of(io.BytesIO(b"anything"), Clip(), RATE_HZ))


# ---- what is not the fault of the sound ---------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.4, 0.9])
@pytest.mark.parametrize("name", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_network_that_fails_is_raised_as_it_is(sounds, name, share):
    data = sounds[name]
    with pytest.raises(Stopped, match="the network is gone"):
        list(fence.parts_of(Distant(data, int(share * len(data))), Clip(), RATE_HZ))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file that cannot be read")
def test_a_disk_that_cannot_be_read_stops_the_run(children):
    with Path("/proc/self/mem").open("rb") as file, pytest.raises(Stopped, match="Input/output error"):
        list(fence.parts_of(file, Clip(), RATE_HZ))


# ---- the child ----------------------------------------------------------------------------------------------------


def test_a_child_knows_no_credentials(children, monkeypatch, sounds):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-in-the-mine")
    list(fence.parts_of(io.BytesIO(sounds["WAV"]), Clip(), RATE_HZ))
    environment = Path(f"/proc/{children[0].process.pid}/environ").read_bytes()
    assert b"PYTHONPATH" in environment and b"canary" not in environment


def test_a_child_dies_with_its_parent_even_in_the_middle_of_a_sound(sounds, tmp_path):
    path = tmp_path / "hang.wav"
    path.write_bytes(b"HANG")
    script = (
        "import sys, threading, time; from wavmill.pipeline.decoding import sandbox_client as fence\n"
        "from wavmill.pipeline.decoding.decode import Clip\n"
        f"sys.path.insert(0, {str(HOSTILE)!r}); child = fence.Child(); fence._idle.append(child)\n"
        "print(child.process.pid, flush=True)\n"
        f"list(fence.parts_of(open({str(path)!r}, 'rb'), Clip(), 16000))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
