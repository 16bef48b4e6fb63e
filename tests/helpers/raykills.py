"""Kills of a run on Ray: of a worker, of an extractor, of a node, of the driver, of everything at once."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wavmill.cluster.listening import descendants

WAVMILL = str(Path(sys.executable).parent / "wavmill")
PATIENCE_S = 300.0
TITLES = {"worker": "ray::MapBatches", "extractor": "ray::MapWorker"}  # of those at work, as they call themselves
ENDS_THE_RUN = {"driver", "everything"}

Death = tuple[str, int]  # who is killed, and how many records are there then


def kill(pids: list[int]) -> int:
    """SIGKILL all of them at once: stopped first, so that nothing is started or finished in between. How many were."""
    killed = 0
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        killed = 0
        for pid in pids:
            try:
                os.kill(pid, sent)
                killed += 1
            except ProcessLookupError:
                pass
    return killed


def kill_tree(pid: int) -> int:
    return kill(descendants(pid))


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def records(store: Path) -> int:
    return len(list((store / "_mill" / "done").rglob("*.json")))


def wait_for(what: Callable[[], Any], run: subprocess.Popen) -> Any:
    """What it says as soon as it says something; None when the run ends first."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        if run.poll() is not None:
            return None
        assert time.monotonic() < deadline, f"nothing after {PATIENCE_S} s"
        time.sleep(0.05)
    return found


def kill_node(cluster: Any, run: subprocess.Popen) -> int:
    """All of the second node of a cluster (two_nodes.py) once it has work."""
    if wait_for(lambda: at_work(cluster.second.pid, "ray::Map"), run) is None:
        return 0
    cluster.kill_second()
    return 1


def at_work(root: int, as_what: str) -> list[int]:
    return [pid for pid in descendants(root) if title(pid).startswith(as_what)]


def history(job_file: Path, store: Path, runs: list[list[Death]], cluster: Any = None) -> Counter[str]:
    """The same command for each list of deaths, and once more if the last one ended it; who was killed.

    A run that nobody ended has to finish.
    """
    killed: Counter[str] = Counter()
    for deaths in runs if runs[-1][-1][0] not in ENDS_THE_RUN else [*runs, []]:
        on = ["--on", cluster.address] if cluster else []
        pool = ["--set", "scale.feature.workers=1"] if "extractor" in dict(deaths) else []
        command = [WAVMILL, "run", str(job_file), "--max-rejects", "1", "--set", "scale.engine=ray", *on, *pool]
        env = cluster.env if cluster else None
        run = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            ended = sum(struck(who, wanted, run, store, cluster, killed) for who, wanted in deaths)
            _, complaint = run.communicate(timeout=PATIENCE_S)
            assert run.returncode == (-signal.SIGKILL if ended else 0), complaint
        finally:
            if run.poll() is None:
                kill_tree(run.pid)
    return killed


def struck(who: str, wanted: int, run: subprocess.Popen, store: Path, cluster: Any, killed: Counter[str]) -> bool:
    """Kill one when so many records are there, unless the run ends before; whether that ends the run."""
    if wait_for(lambda: records(store) >= wanted, run) is None:
        return False
    if who == "node":
        killed[who] += kill_node(cluster, run)
    elif who in ENDS_THE_RUN:
        kill(descendants(run.pid) if who == "everything" else [run.pid])  # Ray's servers live on for up to a minute
        killed[who] += (ended := run.wait() == -signal.SIGKILL)
        return ended
    elif found := wait_for(lambda: at_work(cluster.head.pid if cluster else run.pid, TITLES[who]), run):
        killed[who] += kill(found[:1])
    return False
