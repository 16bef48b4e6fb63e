"""The fence: decoding happens in a child process, so that a crash, a hang or a memory bomb costs one sound.

A child lives as long as the worker that started it, decodes one sound at a time, knows no credentials, and is killed
with its parent. Its counterpart, the child's side, is fenced.py; both speak in lines of JSON, and samples go through
a file in memory. A sound that its second child dies of is rejected; a child that something else killed is never the
fault of the sound.
"""

import io
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import sleep
from typing import Any, BinaryIO

from pipeline.decode import Clip, Part
from pipeline.errors import Reject, Stopped
from pipeline.fenced import Line, Samples
from pipeline.store import faults_of
from pipeline.whole import handle_of

SILENCE_S = 60.0  # of a child that decodes; it speaks once a second
START_S = 300.0  # until a child is there: importing, on a busy machine
VICTIMS = 2  # children that one sound may kill
OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}  # no decoder ends by these on its own
KILLED = 5  # children killed from outside, for one sound, until the run stops
CHUNK_BYTES = 1 << 20
_idle: list["Child"] = []  # of this process


class Died(Exception):
    """Why a child is no more, and whether its sound is to blame."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


def parts_of(
    file: BinaryIO, clip: Clip, rate_hz: int, start_s: float = 0.0, end_s: float = math.inf, lo: int = 0, hi: int = -1
) -> Iterator[Part]:
    """decode.parts_of, behind the fence: the same parts, the same reasons, and ``crashed`` or ``hung``."""
    asked = {"clip": _said(clip), "rate_hz": rate_hz, "stretch": [start_s, end_s, lo, hi]}
    for part in _answers(file, asked):
        start_s, whole, lead, kept, _, reason, message = part["part"]
        yield Part(start_s, whole, part["samples"], lead, kept, Reject(reason, message) if reason else None)


def length_s(file: BinaryIO) -> float:
    """decode.length_s, behind the fence."""
    [answer] = _answers(file, {"length": True})
    return float(answer["length"])


@lru_cache(maxsize=8)
def _said(clip: Clip) -> str:
    return clip.model_dump_json()


def _answers(file: BinaryIO, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a child answers; a second child's answers go on where those of the first ended."""
    given, victims, killed = 0, 0, 0
    while True:
        try:
            with _borrowed() as child:
                for number, answer in enumerate(child.ask(file, asked)):
                    if number >= given:
                        given += 1
                        yield answer
            return
        except Died as death:
            victims += death.reason != "killed"
            killed += death.reason == "killed"
            if killed == KILLED:
                raise Stopped(
                    f"the process that decodes was killed {KILLED} times, last {death.message}: is there too little "
                    "memory? Run the same command again to go on"
                ) from death
            if victims == VICTIMS:
                _read_through(file)
                raise Reject(death.reason, death.message) from death
            sleep(killed)  # memory may come back
        except Reject:
            _read_through(file)
            raise


def _read_through(file: BinaryIO) -> None:
    """Before a sound is blamed: decoders take a disk that cannot be read for the end of the sound."""
    if handle_of(file) is not None:
        with faults_of(str(getattr(file, "name", "corpus"))):
            file.seek(0)
            while file.read(CHUNK_BYTES):
                pass


@contextmanager
def _borrowed() -> Iterator["Child"]:
    """A child of this process that has nothing to do: one for every sound that is being decoded at a time."""
    child = None
    while _idle and child is None:
        child = _idle.pop()
        if child.process.poll() is not None:
            child = None
    child = child or Child()
    try:
        yield child
    finally:
        if child.busy:  # its sound was given up in the middle, or killed it
            child.end()
        else:
            _idle.append(child)


class Child:
    """A process that decodes, seen from its parent."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        # what is not a file goes to the child in one of these, samples come back in another, and so do last words
        self.given, self.taken, self.said = (_memory(name) for name in ("given", "samples", "said"))
        self.samples = Samples(self.taken.fileno())
        handles = there.fileno(), self.given.fileno(), self.taken.fileno()
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",  # each arena takes 64 MiB of the address space, which is limited
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.fenced", *map(str, (*handles, os.getpid()))],
            pass_fds=handles,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
        )
        there.close()
        self.line, self.busy, self.quiet_s = Line(here), True, 0.0
        try:
            self._hear(START_S)
        except Died as death:
            raise AssertionError(f"decoding does not start: {death.message}") from death
        self.busy = False

    def ask(self, file: BinaryIO, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Have a sound decoded. Raises Reject for what the child finds wrong, Died, what reading ``file`` raises."""
        self.busy = True
        if isinstance(file, io.BytesIO):
            self._hand_over(file)
            self._tell({**asked, "from": "given"})
        elif (handle := handle_of(file)) is not None:
            self._tell({**asked, "from": "handle"}, [handle])
        else:
            self._tell({**asked, "from": "parent", "size": file.seek(0, os.SEEK_END)})
        while True:
            answer = self._hear(SILENCE_S)
            if "read" in answer:  # how long that takes is the store's affair
                self._tell({"came": self._read(file, *answer["read"])})
            elif "alive" in answer:
                pass
            elif "reject" in answer:
                self.busy = False
                raise Reject(*answer["reject"])
            elif "machine" in answer:
                self.busy = False
                raise Stopped(f"{answer['machine']}; run the same command again to go on")
            elif "broke" in answer:
                self.busy = False
                raise Died("crashed", answer["broke"])
            elif "end" in answer:
                self.busy = False
                return
            else:
                if "part" in answer:
                    answer["samples"] = self.samples.of(answer["part"][4]).copy()
                self.busy = not answer["last"]
                yield answer
                if not self.busy:
                    return
                self._tell({"next": True})

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for thing in (self.line.socket, self.given, self.taken, self.said):
            thing.close()

    def _hand_over(self, file: io.BytesIO) -> None:
        """The bytes in a file that the child can read as any other."""
        held, done = file.getbuffer(), 0
        with faults_of("where sounds are decoded"):
            os.ftruncate(self.given.fileno(), len(held))
            while done < len(held):
                done += os.pwrite(self.given.fileno(), held[done:], done)
        held.release()

    def _read(self, file: BinaryIO, at: int, size: int) -> int:
        """Bytes that the child asks for, into the file it reads them from; how many came."""
        file.seek(at)
        return os.pwrite(self.given.fileno(), file.read(size), 0)

    def _tell(self, message: dict[str, Any], handles: list[int] | None = None) -> None:
        try:
            self.line.send(message, handles or [])
        except OSError as error:  # a broken pipe: there is nobody
            raise self._death() from error

    def _hear(self, quiet_s: float) -> dict[str, Any]:
        """The child's next message. Died when there will be none."""
        if quiet_s != self.quiet_s:  # the kernel waits: one call for every message, where select() takes two
            self.line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *_timeval(quiet_s)))
            self.quiet_s = quiet_s
        while (message := self.line.held()) is None:
            try:
                if not self.line.more():
                    raise self._death()
            except TimeoutError as error:
                self.process.kill()
                raise Died("hung", f"no sign of life for {quiet_s:g} s") from error
        return message

    def _death(self) -> Died:
        code = self.process.wait()
        self.said.seek(0)
        words = self.said.read().decode(errors="replace").strip().splitlines()
        last = f": {words[-1][:500]}" if words else ""
        if -code in OUTSIDE:
            return Died("killed", f"by {signal.Signals(-code).name}{last}")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return Died("crashed", f"the decoder ended {how}{last}")


def _timeval(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1e6)


def _memory(name: str) -> Any:
    """A file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create(name), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
