"""Disks fill up, fail and write less than they were told to: the same command again, and nothing is lost or torn."""

import errno
import io
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from checker import problems, rows_hash
from inline import WORDS, run_inline, without_fence, words
from places import HELPERS, ROOT

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.errors import NotAllowed, Stopped
from wavmill.pipeline.protocol import publish
from wavmill.pipeline.store import folder as store
from wavmill.pipeline.store import objects

CHANGES = ("makedirs", "create", "write", "fsync", "link", "replace")  # what needs room, or a disk that works
LOOKS = ("open", "scandir", "entry", "stat")
FAULTS = {
    "full": (errno.ENOSPC, CHANGES),
    "over quota": (errno.EDQUOT, CHANGES),
    "failing": (errno.EIO, (*CHANGES, *LOOKS)),
    "gone": (errno.ENOENT, ("create", "link", "replace")),  # somebody removed the folder, or took the disk away
    "stale": (errno.ESTALE, (*CHANGES, *LOOKS)),  # what NFS says when its server started again
    "read-only": (errno.EROFS, CHANGES),
    "short": (0, ("write",)),  # no error: a write that took only half of the bytes
}


class Faulty:
    """Stands between the store and the system, and counts what is asked. Of the calls of one name, some fail."""

    def __init__(self, fault: str = "", name: str = "", which: range = range(0)) -> None:
        self.code, self.name, self.which = FAULTS[fault][0] if fault else 0, name, which
        self.asked, self.failed, self.lock = Counter[str](), 0, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return partial(self.call, name, getattr(os, name)) if name in CHANGES + LOOKS else getattr(os, name)

    def call(self, name: str, does: Callable[..., Any], *given: Any, **options: Any) -> Any:
        with self.lock:
            fails = name == self.name and self.asked[name] in self.which
            self.asked[name] += 1
            self.failed += fails
        if fails and self.code:
            raise OSError(self.code, os.strerror(self.code))
        if fails:
            [data] = given
            return does(data[: -(-len(data) // 2)])
        return does(*given, **options)

    def create(self, path: bytes, mode: str) -> Any:
        return io.BufferedWriter(self.call("create", Raw, path, mode, faulty=self))

    def scandir(self, path: bytes) -> Any:
        return Listed(self.call("scandir", os.scandir, path), self)


class Raw(io.FileIO):
    """A file whose writes are system calls that may fail."""

    def __init__(self, path: bytes, mode: str, faulty: Faulty) -> None:
        super().__init__(path, mode)
        self.faulty = faulty

    def write(self, data: Any) -> int:
        return self.faulty.call("write", super().write, memoryview(data))


class Listed:
    """A folder that is being listed; looking at what is in it may fail."""

    def __init__(self, found: Any, faulty: Faulty) -> None:
        self.found, self.faulty = found, faulty

    def __enter__(self) -> Any:
        return (Found(entry, self.faulty) for entry in self.found)

    def __exit__(self, *_: Any) -> None:
        self.found.close()


class Found:
    def __init__(self, entry: Any, faulty: Faulty) -> None:
        self.entry, self.faulty = entry, faulty

    def __getattr__(self, name: str) -> Any:
        return getattr(self.entry, name)

    def stat(self) -> Any:
        return self.faulty.call("entry", self.entry.stat)


@pytest.fixture
def quick(monkeypatch):
    """Decoding without its fence and a report without pictures use the store just the same, ten times as quickly."""
    monkeypatch.setattr(objects, "parts_of_each", without_fence)
    monkeypatch.setattr(objects, "length_s", decode.length_s)
    monkeypatch.setattr(publish, "dataset_page", lambda *_: "a page")


@pytest.fixture
def few(tmp_path, tone, wav):
    """Two sounds and something that is none."""
    root = tmp_path / "few"
    (root / "word").mkdir(parents=True)
    for number in range(2):
        (root / "word" / f"{number}.wav").write_bytes(wav(tone(0.3, seed=number)))
    (root / "word" / "text.wav").write_text("not a sound")
    return root


def on(faulty, monkeypatch, work):
    """Work with a system that fails as told; what stopped it, or None."""
    with monkeypatch.context() as patch:
        patch.setattr(store, "os", faulty)
        patch.setattr(store, "open", faulty.create, raising=False)
        try:
            work()
        except (Stopped, NotAllowed) as error:
            return error
    return None


def final(folder: Path) -> dict[Path, bytes]:
    """Everything below a name that a reader would take for whole."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


def cases(asked: Counter[str]) -> list[tuple[str, str, range]]:
    """Each fault at each call that can have it: at that one alone, and from there on."""
    fits = [(fault, name, at) for fault in FAULTS for name in FAULTS[fault][1] for at in range(asked[name])]
    alone, onward = ([(fault, name, range(at, at + more)) for fault, name, at in fits] for more in (1, 1000))
    if os.environ.get("WAVMILL_CHAOS"):
        return alone + onward
    lots = random.Random(0)
    some = [*{case[:2]: case for case in lots.sample(alone, len(alone))}.values()]  # a call of each kind
    return [*some, *lots.sample(onward, 8)]


def test_whatever_the_disk_does_the_same_command_again_ends_the_same(few, quick, tmp_path, monkeypatch):
    """Each fault at a call of each kind; ``make chaos`` takes every call."""
    undisturbed, inputs = Faulty(), [str(path.relative_to(few)) for path in few.rglob("*.wav")]
    assert on(undisturbed, monkeypatch, lambda: run_inline(words(few, tmp_path / "whole"))) is None
    assert problems(tmp_path / "whole", "words", inputs) == []
    assert {*undisturbed.asked} == {*CHANGES, *LOOKS}
    right = rows_hash(tmp_path / "whole", "words")
    for number, case in enumerate(cases(undisturbed.asked)):
        at, faulty, cause = tmp_path / str(number), Faulty(*case), os.strerror(FAULTS[case[0]][0])
        said = on(faulty, monkeypatch, lambda at=at: run_inline(words(few, at)))
        assert faulty.failed, case
        assert (said is None) == (case[0] == "short"), case
        if said is not None:
            assert str(said).startswith((f"{at}: ", f"{few}: ")), case
            assert cause in str(said) or (case[0] == "gone" and "its folder was removed" in str(said)), case
        assert not [*at.rglob(".tmp-*")], case
        before = final(at)
        run_inline(words(few, at))
        assert problems(at, "words", inputs) == [], case
        assert rows_hash(at, "words") == right, case
        assert final(at).items() >= before.items(), case


LIMITS = {1_000: "the plan", 3_000: "a shard's data", 20_000: "the report"}  # bytes; what is the first to be larger


@pytest.mark.parametrize("limit", LIMITS, ids=LIMITS.get)
def test_a_write_that_the_system_cuts_short_ends_in_one_line_and_the_same_command_goes_on(limit, few, quick, tmp_path):
    """Nothing is made up here: the kernel refuses, as it does when a disk is full."""
    (tmp_path / "words.yaml").write_text(WORDS.format(path=few, store=tmp_path / "store"))
    command = [sys.executable, str(HELPERS / "limited.py"), str(limit), "run", "words.yaml"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    cause = "File too large; run the same command again to go on"
    assert (ended.returncode, ended.stderr) == (75, f"wavmill: {tmp_path}/store: {cause}\n")
    assert not [*(tmp_path / "store").rglob(".tmp-*")]
    assert all(path.stat().st_size <= limit for path in final(tmp_path / "store"))
    run_inline(words(few, tmp_path / "store"))
    run_inline(words(few, tmp_path / "undisturbed"))
    assert problems(tmp_path / "store", "words", [str(path.relative_to(few)) for path in few.rglob("*.wav")]) == []
    assert rows_hash(tmp_path / "store", "words") == rows_hash(tmp_path / "undisturbed", "words")
