"""Drivers that die, without Ray: python kills.py CORPUS FOLDER KILLS PROGRESS [MISTAKE]

Kills drivers of small jobs by SIGKILL until so many have died of it; checks every history; prints what it killed. The
lots of a history are a function of its seed. PROGRESS keeps which seeds are done, so what was interrupted goes on.

Everything happens in forked children: importing is paid for once, and this process has no threads when it forks.
Decoding without its fence and a report without pictures touch the store just the same, and ten times as quickly.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import av  # noqa: F401  here and not in every child
import scipy.fft  # noqa: F401
import soundfile  # noqa: F401
import soxr  # noqa: F401
from chaos import remember, remembered, summed
from checker import problems, rows_hash
from inline import run_inline, without_fence, words

import wavmill.pipeline.features.mel  # noqa: F401
from wavmill.pipeline.decoding import decode
from wavmill.pipeline.protocol import publish
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.store import folder as store
from wavmill.pipeline.store import objects
from wavmill.pipeline.workspace import Workspace

KINDS = ("before a call", "after a call", "at a moment")
CALLS = {"fsync", "link", "makedirs", "open", "replace", "scandir", "stat", "unlink"}  # what a store asks of the system
ROUNDS = 6  # of a history at most: each starts a driver or two, of which some are killed
TWO_DRIVERS = 0.3  # of the rounds
LATEST = 0.1, 1.1  # shares of an undisturbed run: some histories die early and often, some late
PATIENCE_S = 120
FOUND_OUT = 3  # the exit code when something is wrong with the product


class Death(NamedTuple):
    """When a driver dies: ``before`` or ``after`` the effect of its call ``at``, at a ``moment_s``, or not at all."""

    kind: str = "not at all"
    at: int = -1
    moment_s: float = 0.0


def drawn(lots: random.Random, latest: float, calls: int, seconds: float) -> Death:
    share = latest * lots.random()
    kind = lots.choice(KINDS)
    return Death(kind, -1, share * seconds) if kind == "at a moment" else Death(kind, int(share * calls))


class Deadly:
    """Stands between the store and the system: counts the calls, and kills the process before or after one."""

    def __init__(self, death: Death) -> None:
        self.death, self.numbers, self.calls = death, itertools.count(), 0  # threads may count

    def __getattr__(self, name: str) -> Any:
        return partial(self.call, getattr(os, name)) if name in CALLS else getattr(os, name)

    def call(self, does: Callable[..., Any], *given: Any, **options: Any) -> Any:
        self.calls = number = next(self.numbers)
        if number == self.death.at and self.death.kind == "before a call":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = does(*given, **options)
        if number == self.death.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def copy(self, data: Any, file: Any, size: int) -> None:
        """Before the effect is in the middle of it: half of the bytes are there."""
        if next(self.numbers) == self.death.at:
            whole = data.read()
            file.write(whole if self.death.kind == "after a call" else whole[: len(whole) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        shutil.copyfileobj(data, file, size)


# ---- in a child ---------------------------------------------------------------------------------------------------


def drive(corpus: Path, at: Path, death: Death = Death(), mistake: str = "") -> int:
    """Be a driver, on the way to its death; how often the store called the system otherwise."""
    MISTAKES[mistake]()
    deadly = Deadly(death)
    store.os = deadly  # type: ignore[assignment]
    store.shutil = SimpleNamespace(copyfileobj=deadly.copy, copyfile=shutil.copyfile)  # type: ignore[assignment]
    run_inline(words(corpus, at))
    return deadly.calls


def done(corpus: Path, at: Path) -> bool:
    job = words(corpus, at)
    return publish.published(Workspace(job), make_plans(Workspace(job))) is not None


def checked(corpus: Path, at: Path) -> tuple[list[str], str]:
    inputs = [str(path.relative_to(corpus)) for path in corpus.rglob("*.*")]
    return problems(at, "words", inputs), rows_hash(at, "words")


def record_first() -> None:
    put, held = store.Folder.put, []

    def wrong(self: store.Folder, key: str, data: bytes) -> None:
        held.append((key, data))
        while held and not key.startswith("_mill/out/"):
            put(self, *held.pop())

    store.Folder.put = wrong  # type: ignore


def in_place() -> None:
    def wrong(self: store.Folder, key: str, data: Any, publish: Any) -> None:
        self._tmp(key)
        with Path(os.fsdecode(self.path(key))).open("wb") as file:
            store.shutil.copyfileobj(data, file, 1 << 20)

    store.Folder._write = wrong  # type: ignore


MISTAKES = {"": lambda: None, "record before data": record_first, "written in place": in_place}


# ---- the process that forks, waits and kills ----------------------------------------------------------------------


def forked(answer: Path, work: Callable[..., Any], *given: Any) -> int:
    """Start a child that writes what ``work`` returns; its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        signal.alarm(PATIENCE_S)
        answer.write_text(json.dumps(work(*given)))
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def found_out(*words: str) -> NoReturn:
    print(*words, sep="\n", file=sys.stderr)
    sys.exit(FOUND_OUT)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def answered(answer: Path, work: Callable[..., Any], *given: Any) -> Any:
    if code := ended(forked(answer, work, *given)):
        found_out(f"{work.__name__} {given} ended with {code}")
    return json.loads(answer.read_bytes())


def together(answer: Path, deaths: list[Death], *given: Any) -> list[str]:
    """Drivers at once; which of them were killed, and how. What had ended before its moment was not."""
    start = time.monotonic()
    children = [(forked(answer, drive, *given[:2], death, *given[2:]), death) for death in deaths]
    for child, death in sorted(children, key=lambda pair: pair[1].moment_s):
        if death.kind == "at a moment":
            time.sleep(max(0.0, start + death.moment_s - time.monotonic()))
            os.kill(child, signal.SIGKILL)  # it has not been waited for, so the number is its own
    codes = [(ended(child), death.kind) for child, death in children]
    if any(code not in (0, -signal.SIGKILL) for code, _ in codes):
        found_out(f"drivers ended with {codes}")
    return [kind for code, kind in codes if code]


def content(at: Path) -> dict[Path, bytes]:
    """All that is not to change: whatever has its final name below _mill."""
    return {path: path.read_bytes() for path in (at / "_mill").rglob("[!.]*") if path.is_file()}


def history(seed: int, corpus: Path, folder: Path, whole: dict[str, Any], mistake: str) -> dict[str, int]:
    """A few rounds of killed drivers, a clean one, the checker. How many were killed in which way."""
    lots, at, answer = random.Random(seed), folder / str(seed), folder / "answer"
    kills, before, latest = Counter[str](), dict[Path, bytes](), lots.uniform(*LATEST)
    for _ in range(ROUNDS):
        drivers = 1 + (lots.random() < TWO_DRIVERS)
        deaths = [drawn(lots, latest, whole["calls"], whole["seconds"]) for _ in range(drivers)]
        killed = together(answer, deaths, corpus, at, mistake)
        kills.update(killed)
        kills["rounds"] += 1
        kills["rounds of two drivers"] += len(deaths) - 1
        now = content(at)
        if lost := [str(path) for path, data in before.items() if now.get(path) != data]:
            found_out(f"seed {seed}: changed or gone:", *lost)
        before = now
        if len(killed) < len(deaths):
            break
    answered(answer, drive, corpus, at, Death(), mistake)
    wrong, rows = answered(answer, checked, corpus, at)
    now = content(at)
    wrong += [f"{path} changed or vanished" for path, data in before.items() if now.get(path) != data]
    wrong += [] if rows == whole["rows"] else ["the rows are not those of an undisturbed run"]
    wrong += [] if answered(answer, done, corpus, at) and content(at) == now else ["the same command again does more"]
    if wrong:
        found_out(f"seed {seed}:", *wrong)
    shutil.rmtree(at)
    return kills


def main(corpus: Path, folder: Path, wanted: int, progress: Path, mistake: str = "") -> None:
    folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(folder)  # the dead leave their temporary files behind
    objects.parts_of_each, objects.length_s = without_fence, decode.length_s
    publish.dataset_page = lambda *_: "a page"
    start, quiet, answer = time.monotonic(), folder / "undisturbed", folder / "answer"
    whole = {"calls": answered(answer, drive, corpus, quiet), "seconds": time.monotonic() - start}
    wrong, whole["rows"] = answered(answer, checked, corpus, quiet)
    assert not wrong, wrong
    seeds = itertools.count()
    while sum((total := summed(known := remembered(progress)))[kind] for kind in KINDS) < wanted:
        if (seed := next(seeds)) not in known:
            remember(progress, seed, history(seed, corpus, folder, whole, mistake))
    print(json.dumps({"histories": len(known), **total}))


if __name__ == "__main__":
    place, folder, wanted, progress, *rest = sys.argv[1:]
    main(Path(place), Path(folder), int(wanted), Path(progress), *rest)
