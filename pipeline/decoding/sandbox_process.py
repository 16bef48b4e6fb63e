"""The parent's side of a decoding process: requests, answers, and how it ends."""

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from wavmill.pipeline.decoding.integrity import handle_of
from wavmill.pipeline.decoding.sandbox_channel import TOGETHER, MessageSocket, Samples
from wavmill.pipeline.decoding.sandbox_limits import Locks
from wavmill.pipeline.errors import Bug, JobError, ObjectFault, Reject, Stopped
from wavmill.pipeline.execution.watchdog import heartbeat
from wavmill.pipeline.store.base import translate_os_errors
from wavmill.pipeline.store.corpus import name_of

WORKER = "wavmill.pipeline.decoding.sandbox_worker"
SILENCE_S = 60.0  # without a message from a decoding child; it sends one a second
KEPT_BYTES = 64 << 20  # free memory that a child keeps
START_S = 300.0  # for a child to start and import, on a busy machine
OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}  # signals that decoders do not end by


class ChildEnded(Exception):
    """A child ended: ``crashed`` or ``hung``, or ``killed`` from outside, and a message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


class Child:
    """A process that decodes one sound at a time and ends with its parent."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        # files in memory: for data that is no local file, for samples, and for stderr
        self.given = [_memory("given") for _ in range(TOGETHER)]
        self.taken, self.said = _memory("samples"), _memory("said")
        self.samples = Samples(self.taken.fileno())
        handles = [there.fileno(), self.taken.fileno(), *(given.fileno() for given in self.given)]
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
            "OPENBLAS_NUM_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # Arrow's own pool reserves 1 GiB of it at once
            "ARROW_IO_THREADS": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # Landlock holds the thread that asks for it
            "MALLOC_ARENA_MAX": "2",  # each arena takes 64 MiB of the address space, which is limited
            # keep freed memory: returned pages would cost a page fault each
            "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES // 2),
            "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, *map(str, (os.getpid(), *handles))],
            pass_fds=handles,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
        )
        there.close()
        self.line, self.busy, self.quiet_s = MessageSocket(here), True, 0.0
        try:
            self.locks = Locks(*self._hear(START_S)["ready"])
        except ChildEnded as death:
            raise Bug(f"decoding does not start: {death.message}") from death
        self.busy = False

    def ask(self, file: BinaryIO, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Decode a sound. Raises Reject, ChildEnded, and the errors of reading ``file``."""
        self.busy = True
        where, handles = self._hand_over(0, file)
        self._tell({**asked, **where}, handles)
        while True:
            answer = self._hear(SILENCE_S)
            if "read" in answer:  # without a timeout, which is up to the store
                self._tell({"came": self._read(file, *answer["read"])})
            elif "alive" in answer:
                if "reader" in asked:  # it reads through a large container before decoding
                    heartbeat()
            elif "reject" in answer:
                self.busy = False
                raise Reject(*answer["reject"])
            elif "job" in answer:
                self.busy = False
                raise JobError(answer["job"])
            elif "machine" in answer:
                self.busy = False
                if answer["of_file"]:
                    raise ObjectFault(f"{name_of(file)}: {answer['machine']}")
                raise Stopped(f"{answer['machine']}; run the same command again to go on")
            elif "broke" in answer:
                self.busy = False
                raise ChildEnded("crashed", answer["broke"])
            elif "end" in answer:
                self.busy = False
                return
            else:
                if "part" in answer:
                    answer["samples"] = self.samples.of(answer["part"][4]).copy()
                elif "bytes" in answer:
                    answer["piece"] = self._piece(answer["bytes"])
                self.busy = not answer["last"]
                yield answer
                if not self.busy:
                    return
                self._tell({"next": True})

    def ask_together(self, asked: dict[str, Any], sounds: list[tuple[BinaryIO, Any]]) -> list[list[Any] | None]:
        """Decode short sounds, each with its stretch, with one message and one answer. Raises ChildEnded.

        Returns for each sound its parts as (facts, samples), or None when anything is wrong with it.
        """
        self.busy = True
        told, handles = [], []
        for number, (file, stretch) in enumerate(sounds):
            where, some = self._hand_over(number, file)
            told.append({**where, "stretch": stretch})
            handles += some
        self._tell({**asked, "together": told}, handles)
        while "alive" in (answer := self._hear(SILENCE_S)):
            pass
        if "parts" not in answer:  # not an error of a sound; file descriptors may be left behind
            raise ChildEnded("crashed", str(answer))
        self.busy = False
        samples = self.samples.of(answer["samples"])
        lengths = [facts[4] for parts in answer["parts"] for facts in parts or ()]
        pieces = iter(np.split(samples, np.cumsum(lengths)[:-1]))
        return [parts and [(facts, next(pieces).copy()) for facts in parts] for parts in answer["parts"]]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for thing in (self.line.socket, *self.given, self.taken, self.said):
            thing.close()

    def _hand_over(self, number: int, file: BinaryIO) -> tuple[dict[str, Any], list[int]]:
        """How the child reads the bytes: from a local file, from a file in memory, or by requests."""
        if not isinstance(file, io.BytesIO):
            if (handle := handle_of(file)) is not None:
                return {"from": "handle"}, [handle]
            return {"from": "parent", "size": file.seek(0, os.SEEK_END)}, []
        held, done, handle = memoryview(file.getvalue()), 0, self.given[number].fileno()  # getbuffer() would copy
        with translate_os_errors("where sounds are decoded"):
            os.ftruncate(handle, len(held))
            while done < len(held):
                done += os.pwrite(handle, held[done:], done)
        return {"from": "given", "number": number}, []

    def _read(self, file: BinaryIO, at: int, size: int) -> int:
        """Copy the bytes that the child requests to the file in memory; return their number."""
        file.seek(at)
        data = file.read(size)
        with translate_os_errors("where sounds are decoded"):
            return os.pwrite(self.given[0].fileno(), data, 0)

    def _piece(self, size: int) -> bytes:
        """A piece that a reader yielded, from the file in memory."""
        data = os.pread(self.taken.fileno(), size, 0)
        if len(data) != size:
            raise Bug(f"{len(data):,} of {size:,} bytes came out of the memory shared with the reader")
        return data

    def _tell(self, message: dict[str, Any], handles: list[int] | None = None) -> None:
        try:
            self.line.send(message, handles or [])
        except OSError as error:  # a broken pipe: the child has ended
            raise self._death() from error

    def _hear(self, quiet_s: float) -> dict[str, Any]:
        """The child's next message. Raises ChildEnded when it has ended."""
        if quiet_s != self.quiet_s:  # a socket timeout takes one system call per message, select() two
            self.line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *_timeval(quiet_s)))
            self.quiet_s = quiet_s
        while (message := self.line.buffered()) is None:
            try:
                if not self.line.more():
                    raise self._death()
            except TimeoutError as error:
                self.process.kill()
                raise ChildEnded("hung", f"no sign of life for {quiet_s:g} s") from error
        return message

    def _death(self) -> ChildEnded:
        code = self.process.wait()
        self.said.seek(0)
        words = self.said.read().decode(errors="replace").strip().splitlines()
        last = f": {words[-1][:500]}" if words else ""
        if -code in OUTSIDE:
            return ChildEnded("killed", f"by {signal.Signals(-code).name}{last}")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return ChildEnded("crashed", f"the decoder ended {how}{last}")


def _timeval(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1e6)


def _memory(name: str) -> Any:
    """An unnamed file, in memory if the system supports that."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create(name), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
