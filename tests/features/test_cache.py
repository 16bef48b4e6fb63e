"""What a machine keeps is made once, is complete or absent, and a process that is killed holds up nobody."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wavmill.pipeline.errors import NotAllowed, Stopped
from wavmill.pipeline.store.cache import cache_folder, make_once

WRITER = """
import sys, time
from pathlib import Path
from wavmill.pipeline.store.cache import make_once

def make(partial):
    partial.mkdir()
    (partial / "a").write_bytes(b"1" * 1000)
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
    (partial / "b").write_bytes(b"2" * 1000)

make_once(Path(sys.argv[1]), make)
print("end", flush=True)
"""


def writer(path: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_several_processes_make_a_folder_once(tmp_path):
    running = [writer(tmp_path / "x" / "made", 0.3) for _ in range(3)]
    said = [one.communicate(timeout=30)[0].split() for one in running]
    assert sorted(said) == [["begun", "end"], ["end"], ["end"]]
    assert sorted(path.name for path in (tmp_path / "x" / "made").iterdir()) == ["a", "b"]


def test_a_process_that_is_killed_leaves_nothing_under_the_name_and_the_next_makes_it_anew(tmp_path):
    first = writer(tmp_path / "made", 60)
    assert first.stdout.readline() == "begun\n"
    second = writer(tmp_path / "made", 0)
    time.sleep(0.5)
    assert not (tmp_path / "made").exists() and second.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=30)[0].split() == ["begun", "end"]
    assert [(tmp_path / "made" / name).stat().st_size for name in "ab"] == [1000, 1000]
    assert not (tmp_path / "made.partial").exists()


def test_threads_of_one_process_make_a_file_once(tmp_path):
    made = []

    def make(partial: Path) -> None:
        made.append(partial)
        time.sleep(0.2)
        partial.write_bytes(b"x")

    with ThreadPoolExecutor(8) as pool:
        found = {*pool.map(lambda _: make_once(tmp_path / "made", make), range(8))}
    assert found == {tmp_path / "made"} and len(made) == 1


def test_what_fails_midway_leaves_neither_the_name_nor_the_part(tmp_path):
    def make(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Stopped, match="No space left"):
        make_once(tmp_path / "made", make)
    assert [path.name for path in tmp_path.iterdir()] == ["made.lock"]


def test_what_is_not_complete_is_made_anew_and_what_is_complete_is_not_touched(tmp_path):
    path = tmp_path / "made"
    path.write_bytes(b"ab")
    (tmp_path / "made.partial").mkdir()

    def size_3(path: Path) -> bool:
        return path.exists() and path.stat().st_size == 3

    make_once(path, lambda partial: partial.write_bytes(b"abc"), size_3)
    assert path.read_bytes() == b"abc"
    (tmp_path / "made.lock").unlink()
    make_once(path, lambda _: pytest.fail("it is complete"), size_3)
    assert not (tmp_path / "made.lock").exists()  # so a cache that may only be read serves, too


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path, monkeypatch, answer):
    def refuse(*_: int) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(NotAllowed, match=r"no locks .*set WAVMILL_CACHE"):
        make_once(tmp_path / "made", lambda partial: partial.write_bytes(b""))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "/home/x/.cache/wavmill"),
        ({"WAVMILL_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/x/.cache/wavmill"),
        ({"XDG_CACHE_HOME": "/var/c"}, "/var/c/wavmill"),
        ({"WAVMILL_CACHE": "~/w", "XDG_CACHE_HOME": "/var/c"}, "/home/x/w"),
    ],
)
def test_one_variable_says_where_everything_is_kept(monkeypatch, variables, folder):
    for name in ("WAVMILL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/x", **variables}.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == folder
