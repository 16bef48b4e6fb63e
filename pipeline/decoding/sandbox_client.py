"""The sandbox: decoding runs in a child process, so that a crash, a hang or a memory bomb costs one sound only.

A child lives as long as the worker that started it, decodes one sound at a time, has no credentials, and is killed with
its parent. Parent (sandbox_process.py) and child (sandbox_worker.py) exchange lines of JSON; samples go through shared
memory. Short sounds are sent several at a time, as a message costs as much as decoding one; when anything is wrong with
one of them, it is sent again alone. A sound at which a second child dies is rejected. A child that is killed from
outside is not blamed on the sound.
"""

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from time import sleep
from typing import Any, BinaryIO, TypeVar

from wavmill.pipeline.decoding.decode import Clip, Part
from wavmill.pipeline.decoding.integrity import handle_of, size_of
from wavmill.pipeline.decoding.sandbox_channel import TOGETHER
from wavmill.pipeline.decoding.sandbox_process import Child, ChildEnded
from wavmill.pipeline.errors import Reject, Stopped
from wavmill.pipeline.store.corpus import name_of, translate_object_errors

VICTIMS = 2  # children that may die at one sound
KILLED = 5  # children killed from outside at one sound, before the run stops
SHORT_BYTES = 1 << 20  # sounds up to this size are decoded several at a time
CHUNK_BYTES = 1 << 20
_idle: list[Child] = []  # of this process

T = TypeVar("T")
Stretch = tuple[float, float, int, int]  # start_s, end_s, lo and hi of decode.parts_of


def parts_of(
    file: BinaryIO, clip: Clip, rate_hz: int, start_s: float = 0.0, end_s: float = math.inf, lo: int = 0, hi: int = -1
) -> Iterator[Part]:
    """decode.parts_of in the sandbox: the same parts and reasons, and ``crashed`` or ``hung``."""
    asked = {"clip": _said(clip), "rate_hz": rate_hz, "stretch": [start_s, end_s, lo, hi]}
    for part in _answers(file, asked):
        yield _part(part["part"], part["samples"])


def parts_of_each(
    sounds: Iterable[tuple[T, BinaryIO | None, Stretch]], clip: Clip, rate_hz: int
) -> Iterator[tuple[T, Iterator[Part]]]:
    """parts_of for one sound after another, with the caller's name for it; no parts for a sound without a file.

    Errors of a sound are raised when its parts are iterated.
    """
    short: list[tuple[T, BinaryIO, Stretch]] = []
    for name, file, stretch in sounds:
        if file is not None and _is_short(file):
            short.append((name, file, stretch))
            if len(short) < TOGETHER:
                continue
        yield from _together(short, clip, rate_hz)
        if not short or short[-1][1] is not file:
            yield name, iter(()) if file is None else parts_of(file, clip, rate_hz, *stretch)
        short = []
    yield from _together(short, clip, rate_hz)


def _together(
    sounds: list[tuple[T, BinaryIO, Stretch]], clip: Clip, rate_hz: int
) -> Iterator[tuple[T, Iterator[Part]]]:
    answers: list[list[Any] | None] = [None] * len(sounds)
    if len(sounds) > 1:
        with suppress(ChildEnded), _borrowed() as child:
            asked = {"clip": _said(clip), "rate_hz": rate_hz}
            answers = child.ask_together(asked, [(file, stretch) for _, file, stretch in sounds])
    for (name, file, stretch), parts in zip(sounds, answers, strict=True):
        alone = parts_of(file, clip, rate_hz, *stretch)
        yield name, alone if parts is None else (_part(facts, samples) for facts, samples in parts)


def _is_short(file: BinaryIO) -> bool:
    """Whether a sound is small, and in memory or in a local file."""
    return (isinstance(file, io.BytesIO) or handle_of(file) is not None) and size_of(file) <= SHORT_BYTES


def _part(facts: list[Any], samples: Any) -> Part:
    start_s, whole, lead, kept, _, reason, message, *rest = facts
    return Part(start_s, whole, samples, lead, kept, Reject(reason, message) if reason else None, *rest)


def length_s(file: BinaryIO) -> float:
    """decode.length_s in the sandbox."""
    [answer] = _answers(file, {"length": True})
    return float(answer["length"])


def read_behind(file: BinaryIO, reader: str, options: dict[str, Any]) -> Iterator[bytes]:
    """The pieces of bytes that ``fenced_readers.READERS[reader](file, **options)`` yields, in the sandbox.

    Raises Reject and JobError as the reader does, Reject too when it takes too much memory (``too_large``), crashes or
    hangs twice. Sounds may be decoded while the pieces are taken: that is another child's work. ``file`` must not be
    moved by the caller until the last piece came, unless it reads by os.pread.
    """
    for answer in _answers(file, {"reader": reader, "options": options}):
        yield answer["piece"]


@lru_cache(maxsize=8)
def _said(clip: Clip) -> str:
    return clip.model_dump_json()


def _answers(file: BinaryIO, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers of a child; a second child's answers continue where those of the first ended."""
    given, victims, killed = 0, 0, 0
    while True:
        try:
            with _borrowed() as child:
                for number, answer in enumerate(child.ask(file, asked)):
                    if number >= given:
                        given += 1
                        yield answer
            return
        except ChildEnded as death:
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
    """Read the whole file before a sound is rejected, as decoders take a disk error for the end of the sound."""
    if handle_of(file) is not None:
        with translate_object_errors(name_of(file)):
            file.seek(0)
            while file.read(CHUNK_BYTES):
                pass


@contextmanager
def _borrowed() -> Iterator[Child]:
    """Borrow an idle child of this process; there is one for every sound that is being decoded."""
    child = None
    while _idle and child is None:
        child = _idle.pop()
        if child.process.poll() is not None:
            child = None
    child = child or Child()
    try:
        yield child
    finally:
        if child.busy:  # its sound was abandoned half-way, or it died
            child.end()
        else:
            _idle.append(child)
