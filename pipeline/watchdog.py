"""Who is at which shard since when, and the end of a worker in which nothing moves.

Ray waits for ever for a worker that hangs. Here a worker ends itself, with a trace of all its threads on stderr, when
nothing in it has moved for ``patience_s``; Ray gives its shard to another, three times. And a run that waits, or that
fails, can say for what: workers tell a board, one small actor, what they begin.
"""

import faulthandler
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import pyarrow as pa

from pipeline.nodes import as_listed

LOOK_S = 1.0
SAY_S = 300.0  # without a finished shard, until the driver says who is at what, and again
_moved = 0.0  # when something moved in this process; 0 while no stage is at work
_patience_s = 0.0
_dog: threading.Thread | None = None


def beat() -> None:
    """Something moves: a sound was decoded, a batch extracted."""
    global _moved
    _moved = monotonic()


class Watched:
    """A stage of a run, watched. ``board`` is an actor's handle, or None."""

    def __init__(self, stage: Callable[[pa.Table], pa.Table], name: str, patience_s: float, board: Any = None) -> None:
        self.stage, self.name, self.patience_s, self.board = stage, name, patience_s, board

    def __call__(self, shard: pa.Table) -> pa.Table:
        global _moved
        key = shard["shard"][0].as_py()
        if self.board is not None:
            self.board.begins.remote(key, self.name, f"{socket.gethostname()}, process {os.getpid()}")
        _watch(self.patience_s)
        try:
            done = self.stage(shard)
        finally:
            _moved = 0.0
        if self.board is not None and self.name == "commit":
            self.board.ends.remote(key)
        return done


def _watch(patience_s: float) -> None:
    global _dog, _patience_s
    _patience_s = patience_s
    beat()
    if _dog is None:
        _dog = threading.Thread(target=_look, daemon=True, name="watchdog")
        _dog.start()


def _look() -> None:
    pause = threading.Event()
    while not pause.wait(min(LOOK_S, _patience_s / 4)):
        if _moved and monotonic() - _moved > _patience_s:
            sys.stderr.write(f"wavmill: nothing moved for {_patience_s:g} s; this worker ends itself\n")
            faulthandler.dump_traceback(all_threads=True)
            os._exit(70)


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

    def as_listed(self, source: Any, objects: list[dict[str, Any]]) -> list[bool]:
        """Of each object of a plan whether it is as it was listed, seen from where this actor runs."""
        return [as_listed(source, row) for row in objects]

    def lines(self, most: int = 5) -> list[str]:
        """Who is at what, the most tried and the oldest first."""
        order = sorted(self.at, key=lambda shard: (-self.tries[shard], self.at[shard][2]))
        return [self._line(shard) for shard in order[:most]]

    def _line(self, shard: str) -> str:
        stage, where, since = self.at[shard]
        tries = f", try {self.tries[shard]}" if self.tries[shard] > 1 else ""
        return f"shard {shard[:12]} in {stage} for {monotonic() - since:,.0f} s ({where}{tries})"
