"""The child's side of the sandbox: a process that decodes one sound after another for its parent.

python -m wavmill.pipeline.decoding.sandbox_worker PARENT SOCKET SAMPLES GIVEN...    (process id, file descriptors)
"""

import errno
import io
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from wavmill.pipeline.decoding.decode import Clip, Part, length_s, parts_of
from wavmill.pipeline.decoding.sandbox_channel import READ_BYTES, MessageSocket, ParentFile, Samples
from wavmill.pipeline.decoding.sandbox_limits import lock
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.execution.parent import end_with

MEMORY_BYTES = 1 << 30  # memory for one sound, above that of the process; and for the current clip:
CLIP_BYTES_PER_S = 4 * 4 * 192_000  # four copies of it, float32, at the highest rate in use
MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}  # its faults
TOGETHER_SAMPLES = 1 << 22  # the most samples of an answer to such a message
ALIVE_S = 1.0
HEADER_BYTES = 1 << 13  # buffer of readers of local files, which skip from header to header


class ReportingFile(io.FileIO):
    """A file that calls ``alive`` on every read, as a reader may read for long before it yields."""

    def __init__(self, handle: int, alive: Callable[[], None]) -> None:
        super().__init__(handle)
        self.alive = alive

    def readinto(self, into: Any) -> int | None:
        self.alive()
        return super().readinto(into)


class Decoding:
    """Handles the requests to the child."""

    def __init__(self, line: MessageSocket, samples: int, given: list[int]) -> None:
        self.line, self.samples, self.given, self.spoke = line, Samples(samples), given, monotonic()
        self.base_bytes, self.most_bytes = _address_space_bytes(), 0

    def answer(self, asked: dict[str, Any]) -> None:
        """Handle a request. Never raises: errors of a sound are sent as answers."""
        try:
            self._limit(asked)
            if "together" in asked:
                self._together(asked)
                return
            with self._file(asked) as file:
                if "length" in asked:
                    self._say({"length": length_s(file), "last": True})
                elif "reader" in asked:
                    self._read(file, asked)
                else:
                    self._parts(file, asked)
        except Reject as reject:
            self._say({"reject": [reject.reason, reject.message]})
        except JobError as error:
            self._say({"job": str(error)})
        except OSError as error:
            if error.errno in MACHINE:
                of_file = error.errno in (errno.EIO, errno.ESTALE) and asked.get("from") == "handle"
                self._say({"machine": f"{error.strerror} (where sounds are decoded)", "of_file": of_file})
            elif error.errno == errno.ENOMEM:
                self._say({"reject": self._too_large(asked)})
            else:
                self._broke(error)
        except ImportError as error:  # a module that is not installed, or that sandbox_limits.py does not let it read
            self._say({"machine": f"{error} (where sounds are decoded)", "of_file": False})
        except MemoryError:
            self._say({"reject": self._too_large(asked)})
        except Exception as error:
            self._broke(error)

    def _too_large(self, asked: dict[str, Any]) -> list[str]:
        doing = "reading" if "reader" in asked else "decoding"
        return ["too_large", f"{doing} it takes more than {self._most(asked) >> 20:,} MiB"]

    def _broke(self, error: Exception) -> None:
        at = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"
        self._say({"broke": told[:1000]})

    def _parts(self, file: BinaryIO, asked: dict[str, Any]) -> None:
        clip = _clip(asked["clip"])
        start_s, end_s, lo, hi = asked["stretch"]
        for part in parts_of(file, clip, asked["rate_hz"], start_s, end_s, lo, hi, self._alive):
            self._hand_over(part)
            if part.whole:
                return
            self.line.receive()  # the parent has copied the samples and wants more
        self._say({"end": True})

    def _read(self, file: BinaryIO, asked: dict[str, Any]) -> None:
        """Send the pieces of a reader, one at a time, through the file in memory."""
        from wavmill.pipeline.decoding.sandbox_readers import PIECE_BYTES, READERS

        file.seek(0)  # the position of a shared file is wherever the last reader left it
        for piece in READERS[asked["reader"]](file, **asked["options"]):
            if not piece:
                self._alive()
                continue
            if len(piece) > PIECE_BYTES:
                raise Reject("too_large", f"a piece of {len(piece):,} bytes; at most {PIECE_BYTES:,} are handed over")
            done, held = 0, memoryview(piece)
            while done < len(held):
                done += os.pwrite(self.samples.handle, held[done:], done)
            self._say({"bytes": len(held), "last": False})
            self.line.receive()  # the parent has copied them and wants more
        self._say({"end": True})

    def _hand_over(self, part: Part) -> None:
        self.samples.of(len(part.audio))[:] = part.audio
        self._say({"part": _facts(part), "last": part.whole})

    def _together(self, asked: dict[str, Any]) -> None:
        """Decode several short sounds; None for a sound with any error."""
        clip, taken = _clip(asked["clip"]), 0
        answers: list[list[Any] | None] = []
        for one in asked["together"]:
            answers.append(None)
            parts = []
            with suppress(Exception), self._file(one) as file:
                at, (start_s, end_s, lo, hi) = taken, one["stretch"]
                for part in parts_of(file, clip, asked["rate_hz"], start_s, end_s, lo, hi, self._alive):
                    if (stop := at + len(part.audio)) > TOGETHER_SAMPLES:
                        raise MemoryError
                    self.samples.of(stop)[at:] = part.audio
                    parts.append(_facts(part))
                    at = stop
                answers[-1], taken = parts, at
        self._say({"parts": answers, "samples": taken})

    def _file(self, asked: dict[str, Any]) -> BinaryIO:
        if asked["from"] == "handle":
            handle = self.line.handles.pop(0)
            if "reader" in asked:
                return io.BufferedReader(ReportingFile(handle, self._alive), HEADER_BYTES)
            return os.fdopen(handle, "rb")
        if asked["from"] == "given":
            return open(self.given[asked["number"]], "rb", closefd=False)
        return io.BufferedReader(ParentFile(self.line, self.given[0], asked["size"]), READ_BYTES)

    def _limit(self, asked: dict[str, Any]) -> None:
        """Limit the memory for this sound; a lower limit that exists already is kept."""
        most = self.base_bytes + self._most(asked)
        if self.base_bytes and most != self.most_bytes:
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
            self.most_bytes = most

    def _most(self, asked: dict[str, Any]) -> int:
        return MEMORY_BYTES + (CLIP_BYTES_PER_S * _clip(asked["clip"]).max_s if "clip" in asked else 0)

    def _alive(self) -> None:
        if monotonic() - self.spoke > ALIVE_S:
            self._say({"alive": True})

    def _say(self, message: dict[str, Any]) -> None:
        self.spoke = monotonic()
        try:
            self.line.send(message)
        except OSError:
            sys.exit()


def _facts(part: Part) -> list[Any]:
    wrong = (part.reject.reason, part.reject.message) if part.reject else ("", "")
    rest = (part.frames, part.fps, part.last, part.notice)
    return [part.start_s, part.whole, part.lead_samples, part.kept_samples, len(part.audio), *wrong, *rest]


@lru_cache(maxsize=4)
def _clip(said: str) -> Clip:
    return Clip.model_validate_json(said)


def _address_space_bytes() -> int:
    """The size of the process's address space; 0 where the system does not tell and no limit can be set."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def main() -> None:
    parent, control, samples, *given = (int(word) for word in sys.argv[1:])
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the parent
    import soundfile  # noqa: F401  so that its memory is not the first sound's
    import soxr  # noqa: F401

    line = MessageSocket(socket.socket(fileno=control))
    decoding = Decoding(line, samples, given)
    line.send({"ready": lock()})
    while True:
        decoding.answer(line.receive())


if __name__ == "__main__":
    main()
