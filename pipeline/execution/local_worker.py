"""The main program of a worker of local_executor.py: receives shards, runs all stages on each, returns the result.

python -m wavmill.pipeline.execution.local_worker PARENT SOCKET    (the parent's process id, a file descriptor)

The socket connects it to the driver that started it and to nothing else; objects are pickled, as Ray does.
"""

import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from time import sleep
from typing import Any, cast

import pyarrow as pa

from wavmill.pipeline.errors import WavmillError
from wavmill.pipeline.execution.parent import end_with
from wavmill.pipeline.execution.stages import Stage, Wiring
from wavmill.pipeline.execution.watchdog import HUNG, Watched, WorkListener
from wavmill.pipeline.rows import PlannedShard

ALIVE_S = 1.0  # between two signs of life
Message = tuple[str, Any]  # alive None, begins (shard, stage, where), done table, failed error, broke traceback


class Driver:
    """A worker's connection to the driver. Sends progress messages; ends the process when the connection is lost."""

    def __init__(self, line: Connection) -> None:
        self.line, self._lock = line, threading.Lock()

    def tell(self, *message: object) -> None:
        try:
            with self._lock:
                self.line.send(message)
        except OSError:
            os._exit(1)

    def next(self) -> object:
        try:
            return self.line.recv()
        except (EOFError, OSError):
            os._exit(0)  # nothing needs cleaning up: uncommitted work is done again

    def begins(self, shard: str, stage: str, where: str) -> None:
        self.tell("begins", (shard, stage, where))

    def ends(self, shard: str) -> None:
        pass  # "done" says so

    def keep_telling(self) -> None:
        while True:
            sleep(ALIVE_S)
            self.tell("alive", None)


def watched_stages(stages: list[Stage], patience_s: float, board: WorkListener, end: int = HUNG) -> list[Watched]:
    """The stages with a watchdog; ``end`` is the exit code of this process when one of them hangs."""
    return [Watched(stage.work, stage.name, patience_s, board, end) for stage in stages]


def through(stages: list[Watched], shard: PlannedShard) -> pa.Table:
    """Run all stages on one shard of the plan."""
    table = pa.Table.from_pylist([shard])
    for stage in stages:
        table = stage(table)
    return table


def main() -> None:
    parent, handle = (int(word) for word in sys.argv[1:])
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    driver = Driver(Connection(handle))
    threading.Thread(target=driver.keep_telling, daemon=True).start()
    try:
        wiring, patience_s = cast(tuple[Wiring, float], driver.next())
        stages = watched_stages(wiring(None), patience_s, driver)
        while True:
            driver.tell("done", through(stages, cast(PlannedShard, driver.next())))
    except WavmillError as error:
        driver.tell("failed", error)
    except Exception:
        driver.tell("broke", traceback.format_exc())
    driver.next()  # wait until the driver has read the message


if __name__ == "__main__":
    main()
