"""Who is at which shard since when, and the end of a worker in which nothing moves.

An executor waits for ever for a worker that hangs. So a worker ends itself, with a trace of all its threads on stderr,
when nothing in it has moved for ``patience_s``; its shard is given to another, three times. And a run that waits, or
that fails, can say for what: workers tell a board what they begin.
"""

import faulthandler
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

import pyarrow as pa

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.rows import PlannedObject, ShardLine

LOOK_S = 1.0
SAY_S = 300.0  # without a finished shard, until the driver says who is at what, and again
IDLE_S = 30.0  # without a worker at any shard, until the driver says what it waits for
HUNG = 70  # the exit code of a worker that ended itself
_moved = 0.0  # when something moved in this process; 0 while no stage is at work
_at: "Watched | None" = None
_dog: threading.Thread | None = None


class WorkListener(Protocol):
    """Who hears what a worker begins and ends: a Board, or what passes it on to one."""

    def begins(self, shard: str, stage: str, where: str) -> object: ...
    def ends(self, shard: str) -> object: ...


def heartbeat() -> None:
    """Something moves: a sound was decoded, a batch extracted."""
    global _moved
    _moved = monotonic()


class Watched:
    """A stage of a run, watched; ``board`` hears of it.

    A process in which nothing moves for ``patience_s`` ends itself with the exit code ``end``.
    """

    def __init__(
        self,
        stage: Callable[[pa.Table], pa.Table],
        name: str,
        patience_s: float,
        board: WorkListener | None = None,
        end: int = HUNG,
    ) -> None:
        self.stage, self.name, self.patience_s, self.board, self.end = stage, name, patience_s, board, end
        self.shard = ""

    def __call__(self, table: pa.Table) -> pa.Table:
        global _moved
        self.shard = table["shard"][0].as_py()
        if self.board is not None:
            self.board.begins(self.shard, self.name, f"{socket.gethostname()}, process {os.getpid()}")
        _watch(self)
        try:
            done = self.stage(table)
        finally:
            _moved = 0.0
        if self.board is not None and self.name == "commit":
            self.board.ends(self.shard)
        return done


def _watch(stage: Watched) -> None:
    global _dog, _at
    _at = stage
    heartbeat()
    if _dog is None:
        _dog = threading.Thread(target=_look, daemon=True, name="watchdog")
        _dog.start()


def _look() -> None:
    pause = threading.Event()
    while (stage := _at) is not None and not pause.wait(min(LOOK_S, stage.patience_s / 4)):
        if _moved and monotonic() - _moved > stage.patience_s:
            faulthandler.dump_traceback(all_threads=True)
            does = "this worker ends itself" if stage.end == HUNG else "run the same command again to go on"
            said = f"nothing moved for {stage.patience_s:g} s in {stage.name} of shard {stage.shard[:12]}; {does}"
            sys.stderr.write(f"wavmill: {said}\n")
            sys.stderr.flush()
            os._exit(stage.end)


@contextmanager
def patience(
    at_work: Callable[[], list[str]], idle: Callable[[], str], watch: Callable[[ShardLine], None]
) -> Iterator[Callable[[], None]]:
    """Gives what is to be called at every finished shard. While it is not for long, another thread says who waits.

    ``at_work``: a line for each worker at a shard. ``idle``: what a run in which there is none is waiting for.
    """
    over, last = threading.Event(), [monotonic()]

    def moved() -> None:
        last[0] = monotonic()

    def look() -> None:
        said, asked = monotonic(), monotonic()
        while not over.wait(LOOK_S):
            now = monotonic()
            if now - max(last[0], said) > SAY_S:
                said = now
                lines = at_work() or [idle()]
                watch({"waiting": f"no shard finished for {(now - last[0]) / 60:,.0f} min: {'; '.join(lines)}"})
            elif now - max(last[0], said, asked) > IDLE_S:
                asked = now
                if not at_work():
                    said = now
                    watch({"waiting": f"{idle()} for {now - last[0]:,.0f} s"})

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        over.set()
        thread.join()


class RemoteCall(Protocol):
    """A method of an actor: ``remote`` calls it there, and gives what ray.get waits for."""

    def remote(self, *args: object) -> object: ...


class BoardHandle(Protocol):
    """A Board that is an actor of Ray's, seen from another process."""

    begins: RemoteCall
    ends: RemoteCall
    lines: RemoteCall
    as_listed: RemoteCall


class Board:
    """What the workers of a run are at."""

    def __init__(self) -> None:
        self.at: dict[str, tuple[str, str, float]] = {}  # shard -> stage, where, since when
        self.tries: Counter[str] = Counter()

    def begins(self, shard: str, stage: str, where: str) -> None:
        self.at[shard] = stage, where, monotonic()
        self.tries[shard] += stage == "read"

    def ends(self, shard: str) -> None:
        self.at.pop(shard, None)
        self.tries.pop(shard, None)

    def as_listed(self, source: Source, objects: Sequence[PlannedObject]) -> list[bool]:
        """Of each object of a plan whether it is as it was listed, seen from where this actor runs."""
        return [source.has(row) for row in objects]

    def lines(self, most: int = 5) -> list[str]:
        """Who is at what, the most tried and the oldest first."""
        at = dict(self.at)  # another thread may ask
        order = sorted(at, key=lambda shard: (-self.tries[shard], at[shard][2]))
        return [self._line(shard, *at[shard]) for shard in order[:most]]

    def _line(self, shard: str, stage: str, where: str, since: float) -> str:
        tries = f", try {self.tries[shard]}" if self.tries[shard] > 1 else ""
        return f"shard {shard[:12]} in {stage} for {monotonic() - since:,.0f} s ({where}{tries})"
