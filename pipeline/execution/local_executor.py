"""Run the stages on this machine without Ray: in worker processes that take one shard at a time, or in this process.

A worker is a new Python process, because a fork of a process with threads may hang. It runs all stages on a shard and
returns the result of the last one: sound and features stay in the worker, and memory holds one shard per worker.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any

import pyarrow as pa

from wavmill.pipeline.errors import AGAIN, Stopped
from wavmill.pipeline.execution import resources as scale
from wavmill.pipeline.execution.local_worker import Message, through, watched_stages
from wavmill.pipeline.execution.stages import Watch, Wiring
from wavmill.pipeline.execution.watchdog import HUNG, Board, patience
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.plan import objects_between
from wavmill.pipeline.rows import PlannedShard

WORKER = "wavmill.pipeline.execution.local_worker"
LISTEN_S = 1.0
START_S = 300.0  # until a worker's first message: it imports the package, on a busy machine
END_S = 5.0  # for an idle worker to end by itself before it is killed
NAMED = 3  # the most objects of a shard that a message names
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(Exception):
    """An unexpected error in a worker; the text is the traceback from there."""


class LocalExecutor:
    """An Executor (stages.py).

    workers: the most processes; 0: all work is done in this one, which exits with code 75 when a stage hangs.
    threads: of each worker. gpus: the CUDA names of the GPUs that workers share.
    verbose: workers write to this process's stderr.
    """

    def __init__(self, workers: int, threads: int = 1, gpus: Sequence[str] = (), verbose: bool = False) -> None:
        self.workers, self.threads, self.gpus, self.verbose = workers, threads, gpus, verbose

    def __call__(
        self, job: Job, wiring: Wiring, shards: Iterable[PlannedShard], watch: Watch
    ) -> Generator[pa.Table, None, None]:
        board = Board()
        made = self._by_workers(job, wiring, shards, board) if self.workers else _here(job, wiring, shards, board)
        with (
            patience(board.lines, lambda: "no worker is at a shard: they are starting", watch) as moved,
            closing(made) as tables,
        ):
            for table in tables:
                moved()
                yield table

    def _by_workers(
        self, job: Job, wiring: Wiring, shards: Iterable[PlannedShard], board: Board
    ) -> Generator[pa.Table, None, None]:
        pool = Pool(self, job, wiring, board)
        try:
            yield from pool.tables(iter(shards))
        except BaseException:
            for worker in pool.workers:
                worker.process.kill()
            raise
        finally:
            for worker in pool.workers:
                worker.line.close()
            for worker in pool.workers:
                worker.end()


def _here(job: Job, wiring: Wiring, shards: Iterable[PlannedShard], board: Board) -> Generator[pa.Table, None, None]:
    stages = watched_stages(wiring(None), job.scale.patience_s, board, Stopped.exit_code)
    for shard in shards:
        yield through(stages, shard)


class Pool:
    """The workers of one run, and the shard that each is working on."""

    def __init__(self, executor: LocalExecutor, job: Job, wiring: Wiring, board: Board) -> None:
        self.executor, self.job, self.wiring, self.board = executor, job, wiring, board
        self.workers: list[Worker] = []
        self.again, self.tries = deque[PlannedShard](), Counter[str]()

    def tables(self, todo: Iterator[PlannedShard]) -> Generator[pa.Table, None, None]:
        """Yield the last stage's result for each shard. Raises a worker's error, and Stopped as an Executor does."""
        asked = monotonic()
        while self._hand_out(todo):
            lines = {worker.line: worker for worker in self.workers}
            heard = [lines[line] for line in wait([*lines], LISTEN_S) if isinstance(line, Connection)]
            for worker in heard:
                if (message := worker.receive()) is None:
                    self._lost(worker)
                elif (table := self._take(worker, *message)) is not None:
                    yield table
            # The time that this process was stopped (Ctrl-Z) or busy with the tables does not count.
            passed_s, asked = min(monotonic() - asked, 2 * LISTEN_S), monotonic()
            for worker in set(self.workers) - set(heard):
                worker.silent_s += passed_s
                if worker.silent_s > (self.job.scale.patience_s if worker.began else START_S):
                    worker.process.kill()  # stopped, or in a library that holds the GIL

    def _hand_out(self, todo: Iterator[PlannedShard]) -> bool:
        """Give a shard to every idle worker, and start workers up to the limit. False when no worker has a shard."""
        idle = [worker for worker in self.workers if worker.shard is None]
        while idle or len(self.workers) < self.executor.workers:
            shard = self.again.popleft() if self.again else next(todo, None)
            if shard is None:
                break
            if not idle:
                idle.append(Worker(self._environment(len(self.workers)), self.executor.verbose))
                idle[0].send((self.wiring, self.job.scale.patience_s))
                self.workers.append(idle[0])
            idle.pop().give(shard)
        return any(worker.shard is not None for worker in self.workers)

    def _take(self, worker: "Worker", kind: str, content: Any) -> pa.Table | None:
        """Handle a message; return the table that it carries, if any."""
        if kind == "failed":
            raise content
        if kind == "broke":
            raise WorkerError(content)
        if kind == "begins":
            self.board.begins(*content)
        if kind != "done" or worker.shard is None:
            return None
        key, worker.shard = worker.shard["shard"], None
        self.board.ends(key)
        self.tries.pop(key, None)
        return content

    def _lost(self, worker: "Worker") -> None:
        """Queue the shard of a worker that ended for another worker. Raises Stopped after too many attempts."""
        self.workers.remove(worker)
        how, shard = worker.exit_reason(), worker.shard
        if shard is None:
            return
        key = shard["shard"]
        self.tries[key] += 1
        if self.tries[key] > scale.RETRIES:
            many = f"{self.tries[key]} workers ended, one after another,"
            raise Stopped(f"{many} at shard {key[:12]} ({_objects(self.job, shard)}), the last {how}; {AGAIN}")
        self.again.append(shard)

    def _environment(self, number: int) -> dict[str, str]:
        """The environment variables of a worker: module path, number of threads, GPU."""
        path = os.pathsep.join(dict.fromkeys(one or "." for one in sys.path))
        threads = {name: str(self.executor.threads) for name in THREADS if name not in os.environ}
        gpus = self.executor.gpus
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        return {**os.environ, **threads, **gpu, "PYTHONPATH": path}


class Worker:
    """A process of local_worker.py. ``silent_s``: how long the driver has waited since its last message."""

    def __init__(self, environment: dict[str, str], verbose: bool) -> None:
        here, there = socket.socketpair()
        self.said = None if verbose else tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process lives
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, str(os.getpid()), str(there.fileno())],
            pass_fds=[there.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
        )
        there.close()
        self.line = Connection(here.detach())
        self.shard: PlannedShard | None = None
        self.began, self.silent_s = False, 0.0

    def give(self, shard: PlannedShard) -> None:
        self.shard = shard
        self.send(shard)

    def send(self, message: object) -> None:
        with suppress(OSError):  # it has ended, which ``receive`` reports
            self.line.send(message)

    def receive(self) -> Message | None:
        """The next message of the process; None when it has ended."""
        self.began, self.silent_s = True, 0.0
        try:
            message: Message = self.line.recv()
        except (EOFError, OSError):
            return None
        return message

    def exit_reason(self) -> str:
        """Why the process ended: its exit code or signal, and the last line it wrote."""
        self.line.close()
        code, last = self.end(), ""
        if self.said is not None:
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().splitlines()
            last = f": {lines[-1].removeprefix('wavmill: ')[:500]}" if lines else ""
        if code == HUNG:
            return f"by its watchdog{last.partition(';')[0]}"
        if code == -signal.SIGKILL:
            return "by SIGKILL (is there too little memory?)"
        return (f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}") + last

    def end(self) -> int:
        """Wait for the process to end, kill it if it does not; return its exit code."""
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _objects(job: Job, shard: PlannedShard) -> str:
    paths = objects_between(job.store, shard["objects"], shard["row_lo"], shard["row_hi"])["path"].unique().to_pylist()
    return ", ".join(paths[:NAMED]) + (f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else "")
