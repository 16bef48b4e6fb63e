"""Readers of containers behind the fence: their bytes arrive as they are, and what goes wrong costs one object."""

import io
import os
import signal

import pytest
from places import HOSTILE

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding import sandbox_process as child
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError, Reject


@pytest.fixture
def children(monkeypatch):
    """Children with the readers of tests/hostile; every one that is started from here on."""
    started = []

    class Counted(fence.Child):
        def __init__(self):
            super().__init__()
            started.append(self)

    monkeypatch.setattr(fence, "Child", Counted)
    monkeypatch.setattr(fence, "_idle", [])
    monkeypatch.setattr(child, "SILENCE_S", 1.5)
    monkeypatch.setattr(fence, "sleep", lambda seconds: None)
    monkeypatch.syspath_prepend(HOSTILE)
    yield started
    for idle in fence._idle:
        idle.end()


def pieces(file, reader, **options):
    return list(fence.read_behind(file, reader, options))


def nothing():
    return io.BytesIO(b"")


@pytest.mark.parametrize("size", [1, 4097, 1 << 20])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_what_a_reader_yields_arrives_byte_for_byte(children, tmp_path, kind, size):
    data = os.urandom(size * 3 + 5) if size > 1 else bytes(range(256))
    (tmp_path / "x").write_bytes(data)
    with (tmp_path / "x").open("rb") if kind == "file" else io.BytesIO(data) as file:
        taken = pieces(file, "echo", size=size)
    assert b"".join(taken) == data and {len(piece) for piece in taken[:-1]} == {size}
    assert len(children) == 1


def test_sounds_are_decoded_by_another_process_while_pieces_are_taken(children, tone, wav):
    taken = fence.read_behind(nothing(), "numbers", {"count": 3})
    first = next(taken)
    [part] = fence.parts_of(io.BytesIO(wav(tone(0.5))), Clip(), 16_000)
    assert (first, *taken) == (b"0", b"1", b"2") and part.kept_samples == 8000
    assert len(children) == 2
    pieces(nothing(), "numbers", count=1)
    assert len(children) == 2


@pytest.mark.parametrize(
    ("fault", "expected", "message", "started"),
    [
        ("reject", Reject, "it is damaged", 1),
        ("job", JobError, "source.path: it is no table", 1),
        ("odd", Reject, "ZeroDivisionError: by a header of zeros", 1),
        ("bomb", Reject, r"reading it takes more than 1,024 MiB", 1),
        ("segv", Reject, "crashed.*SIGSEGV", 2),
        ("hang", Reject, "hung", 2),
    ],
)
def test_a_fault_of_a_reader_keeps_what_came_before(children, fault, expected, message, started):
    taken = []
    with pytest.raises(expected, match=message):
        for piece in fence.read_behind(nothing(), "numbers", {"count": 5, "fault": fault, "at": 3}):
            taken.append(piece)
    assert taken == [b"0", b"1", b"2"] and len(children) == started


def test_a_second_process_goes_on_where_the_first_was_killed(children):
    taken = fence.read_behind(nothing(), "numbers", {"count": 5})
    some = [next(taken), next(taken)]
    os.kill(children[0].process.pid, signal.SIGKILL)
    assert [*some, *taken] == [b"0", b"1", b"2", b"3", b"4"] and len(children) == 2


def test_a_reader_that_says_it_is_at_work_does_not_hang(children):
    assert pieces(nothing(), "slow", seconds=2.5) == [b"done"]


def test_pieces_given_up_in_the_middle_do_not_disturb_the_next(children):
    taken = fence.read_behind(nothing(), "numbers", {"count": 5})
    next(taken)
    taken.close()
    assert pieces(nothing(), "numbers", count=2) == [b"0", b"1"] and len(children) == 2


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_every_reader_begins_at_the_first_byte_whoever_read_before(children, tmp_path, kind):
    """Handles that two processes share stand at one place, and so does the memory that the next object is given in."""
    data = bytes(range(256)) * 40
    (tmp_path / "x").write_bytes(data)
    for _ in range(3):
        with (tmp_path / "x").open("rb") if kind == "file" else io.BytesIO(data) as file:
            file.read(100)
            for _ in range(2):
                assert b"".join(pieces(file, "echo", size=4096)) == data
            taken = fence.read_behind(file, "echo", {"size": 4096})
            first = next(taken)
            os.kill(children[-1].process.pid, signal.SIGKILL)
            assert b"".join([first, *taken]) == data
