"""A watchdog for hanging workers, and a board of which worker is at which shard.

An executor would wait for ever for a worker that hangs. So a worker that makes no progress for ``patience_s`` prints a
trace of all its threads to stderr and ends itself; its shard is given to another, three times. Workers report what they
begin to a Board, so that a waiting or failing run can say what it waits for.
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
SAY_S = 300.0  # without a finished shard, until the driver lists the workers' shards, and again
IDLE_S = 30.0  # without a working worker, until the driver says what it waits for
HUNG = 70  # the exit code of a worker that the watchdog ended
_moved = 0.0  # time of the last heartbeat in this process; 0 while no stage runs
_at: "Watched | None" = None
_dog: threading.Thread | None = None


class WorkListener(Protocol):
    """What a worker reports to: a Board, or a connection to one."""

    def begins(self, shard: str, stage: str, where: str) -> object: ...
    def ends(self, shard: str) -> object: ...


def heartbeat() -> None:
    """Report progress: a sound was decoded, a batch extracted."""
    global _moved
    _moved = monotonic()


class Watched:
    """A stage with a watchdog, which reports to ``board`` what it begins.

    Without a heartbeat for ``patience_s`` the process ends itself with the exit code ``end``.
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
    """Yields a function to call at every finished shard. When it is not called for long, a thread tells ``watch`` why.

    ``at_work``: a line per working worker. ``idle``: what a run without a working worker is waiting for.
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
    """A method of a Ray actor: ``remote`` calls it and returns an object reference."""

    def remote(self, *args: object) -> object: ...


class BoardHandle(Protocol):
    """The handle of a Board that is a Ray actor."""

    begins: RemoteCall
    ends: RemoteCall
    lines: RemoteCall
    as_listed: RemoteCall


class Board:
    """Which shard and stage each worker of a run is working on."""

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
        """For each object of a plan, whether this process sees it as it was listed."""
        return [source.has(row) for row in objects]

    def lines(self, most: int = 5) -> list[str]:
        """A line per working worker, the most retried and the oldest first."""
        at = dict(self.at)  # another thread may ask
        order = sorted(at, key=lambda shard: (-self.tries[shard], at[shard][2]))
        return [self._line(shard, *at[shard]) for shard in order[:most]]

    def _line(self, shard: str, stage: str, where: str, since: float) -> str:
        tries = f", try {self.tries[shard]}" if self.tries[shard] > 1 else ""
        return f"shard {shard[:12]} in {stage} for {monotonic() - since:,.0f} s ({where}{tries})"
