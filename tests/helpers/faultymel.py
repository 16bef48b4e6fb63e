"""Mel features in whose worker something happens at the clip of 5 s, as often as the file ``times`` has lines."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wavmill.pipeline.errors import JobError, NotAllowed, ObjectFault, Stopped
from wavmill.pipeline.features.mel import Mel

LONG_SAMPLES = 80_000


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}: the very reason")


HAPPENS: dict[str, Callable[[], object]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "frozen": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": lambda: time.sleep(3600),
    "stopped": raising(Stopped("the very reason")),
    "not allowed": raising(NotAllowed("the very reason")),
    "job": raising(JobError("the very reason")),
    "object": raising(ObjectFault("the very reason")),
    "bug": raising(ZeroDivisionError("the very reason")),
    "memory": raising(MemoryError("the very reason")),
    "unpicklable": raising(Unpicklable(1, 2)),
}


class FaultyMel(Mel):
    happens: str
    times: str

    def open(self) -> Callable[[Sequence[np.ndarray]], list[Any]]:
        mel, times = super().open(), Path(self.times)

        def work(waves: Sequence[np.ndarray]) -> list[Any]:
            lines = times.read_text().splitlines()
            if lines and any(len(wave) == LONG_SAMPLES for wave in waves):
                times.write_text("\n".join(lines[1:]))
                HAPPENS[self.happens]()
            return mel(waves)

        return work
