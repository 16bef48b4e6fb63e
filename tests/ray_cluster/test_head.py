"""A cluster that was running already, and whose head or driver is lost: what is left of a killed run, what is said."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inline import WORDS
from places import HELPERS
from raykills import WAVMILL, at_work, descendants, kill, kill_tree, title
from two_nodes import ROOT, environment, start_head

from wavmill.cluster import supervisor

CPUS = 4  # logical ones
SLOW_JOB = WORDS.replace("{{kind: mel}}", "{{kind: 'slowmel:SlowMel'}}").replace("words", "{name}")
TASK = "ray::MapBatches"
PATIENCE_S = 150.0  # a first task of a fresh head took 50 s on a busy machine


class Head:
    """A head node with CPUS, and what a driver needs to connect to it."""

    def __init__(self, temp: str) -> None:
        tests = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)]), "SLOW_S": "1.5", "COLUMNS": "1000"}
        self.env = environment(temp) | tests
        self.address, self.process = start_head(temp, self.env, CPUS)

    def run(self, job: Path, **env: str) -> subprocess.Popen[str]:
        command = [WAVMILL, "run", str(job), "--max-rejects", "1", "--on", self.address]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env={**self.env, **env}, text=True, **pipes)

    def tasks(self) -> int:
        return len(at_work(self.process.pid, TASK))

    def most_tasks(self, run: subprocess.Popen[str], enough: int) -> int:
        """The most tasks at once, until ``enough`` were seen, the run ended, or time is up."""
        most, end = 0, time.monotonic() + PATIENCE_S
        while most < enough and run.poll() is None and time.monotonic() < end:
            most = max(most, self.tasks())
            time.sleep(0.05)
        return most


def until(what: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    temp = tempfile.mkdtemp(prefix="wm-")  # short: the paths of Ray's sockets may have 107 bytes
    node = Head(temp)
    try:
        until(lambda: not supervisor._no_answer(node.address))
        yield node
    finally:
        kill_tree(node.process.pid)
        node.process.wait()
        shutil.rmtree(temp, ignore_errors=True)


def test_a_run_after_a_killed_one_has_all_cpus_and_ends_with_75_when_the_head_is_lost(head, corpus, tmp_path):
    """The claim of the killed driver stays in Ray's coordinator, where each claim takes its part of every node."""
    job = tmp_path / "slow.yaml"
    job.write_text(SLOW_JOB.format(name="slow", path=corpus, store=tmp_path / "store"))
    first = head.run(job)
    try:
        assert head.most_tasks(first, enough=1) == 1
        [driver] = [pid for pid in descendants(first.pid)[1:] if "wavmill.cluster.cli" in title(pid)]
        kill([first.pid])  # not the driver, which ends by itself
        first.wait()
        until(lambda: "wavmill.cluster.cli" not in title(driver))
        until(lambda: not head.tasks())
    finally:
        kill_tree(first.pid)
    again = head.run(job, **{supervisor.RECONNECT: "2"})
    try:
        assert head.most_tasks(again, enough=CPUS) == CPUS
        kill_tree(head.process.pid)
        _, err = again.communicate(timeout=PATIENCE_S)
    finally:
        kill_tree(again.pid)
    last = err.strip().splitlines()[-1]
    assert again.returncode == 75 and head.address in last and "was lost" in last, err
    assert "run the same command again" in last


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process of some code that stands for a verb, watched; its exit code as the command's."""
    for name in ("FIRST_ASK_S", "ASK_S", "SAY_S"):
        monkeypatch.setattr(supervisor, name, 0.1)
    monkeypatch.setattr(supervisor, "GIVE_UP_S", 0.5)
    monkeypatch.delenv(supervisor.WATCHED, raising=False)

    def run(code: str, answers: bool = False) -> int:
        monkeypatch.setattr(
            supervisor, "_no_answer", lambda address: "" if answers else f"nothing listens at {address}"
        )
        monkeypatch.setattr(supervisor, "COMMAND", (sys.executable, "-c", code))
        with pytest.raises(SystemExit) as end:
            supervisor.supervise("head:6379")
        return end.value.code

    return run


TOLD = "import sys, time; from wavmill.cluster.supervisor import telling\nwith telling(): {}"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 77, 130])
def test_the_exit_code_of_a_verb_passes_through(watched, code, capfd):
    assert watched(TOLD.format(f"sys.exit({code})"), answers=True) == code
    assert capfd.readouterr().err == ""


def test_a_verb_whose_head_does_not_answer_is_ended(watched, capfd):
    began = time.monotonic()
    assert watched(TOLD.format("time.sleep(60)")) == 75
    assert time.monotonic() - began < 20
    assert [line for line in capfd.readouterr().err.splitlines() if "was lost: nothing listens at head:6379" in line]


def test_a_bug_keeps_its_traceback(watched, capfd):
    assert watched(TOLD.format("1 / 0"), answers=True) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_a_verb_that_is_ended_without_a_word_is_told(watched, capfd, end):
    assert watched(TOLD.format(f"import os; {end}"), answers=True) == 75
    assert "run the same command again" in capfd.readouterr().err
    assert watched(TOLD.format(f"import os; {end}")) == 75
    assert "was lost" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_watching_process_reaches_the_verb(watched, number, monkeypatch):
    monkeypatch.setattr(supervisor, "_at_terminal", lambda: False)
    handler = f"import signal, os; signal.signal({int(number)}, lambda *_: sys.exit(42))"
    assert watched(TOLD.format(f"{handler}; os.kill(os.getppid(), {int(number)}); time.sleep(60)"), answers=True) == 42
