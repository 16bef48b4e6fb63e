"""Decoding behind the fence beside decoding in the worker itself: 3 s clips, as many workers as a run has.

    python benchmarks/fence.py [ROUNDS]

Two workers a core, as in a run: while one waits for its child, the other computes. Every round lets all workers
decode a shard's worth of clips again and again in the one way, then in the other, for as long; both give the same
samples, which is checked first.
"""

import io
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import soundfile

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.decoding import sandbox_client as fence

CLIP, RATE_HZ, CLIP_S, FOR_S, SHARD = decode.Clip(), 16_000, 3.0, 2.0, 40
WHOLE = 0.0, math.inf, 0, -1
WORKERS = 2 * (os.cpu_count() or 1)
FORMATS = {
    "FLAC, 16 kHz": ("FLAC", 16_000), "MP3, 16 kHz": ("MP3", 16_000), "WAV, 16 kHz": ("WAV", 16_000),
    "FLAC, 44.1 kHz": ("FLAC", 44_100), "MP3, 44.1 kHz": ("MP3", 44_100), "WAV, 44.1 kHz": ("WAV", 44_100),
}  # fmt: skip


def in_the_worker(sounds: Iterable[tuple[int, io.BytesIO, tuple[float, float, int, int]]]) -> Iterator[Any]:
    for number, file, stretch in sounds:
        yield number, decode.parts_of(file, CLIP, RATE_HZ, *stretch)


def behind_the_fence(sounds: Iterable[tuple[int, io.BytesIO, tuple[float, float, int, int]]]) -> Iterator[Any]:
    return fence.parts_of_each(sounds, CLIP, RATE_HZ)


WAYS: dict[str, Callable[..., Iterator[Any]]] = {"in the worker": in_the_worker, "behind the fence": behind_the_fence}


def sound_of(format: str, rate_hz: int) -> bytes:
    """A glide of three harmonics with noise, which a codec cannot pack much better than speech."""
    t = np.arange(round(CLIP_S * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * harmonic * (120 * t + 20 * t * t)) / harmonic for harmonic in (1, 2, 3))
    samples = 0.2 * tones + np.random.default_rng(0).normal(0, 0.01, len(t))
    sink = io.BytesIO()
    soundfile.write(sink, samples.astype(np.float32), rate_hz, format=format)
    return sink.getvalue()


def decoded(way: str, data: bytes) -> list[np.ndarray]:
    return [part.audio for _, parts in WAYS[way]((n, io.BytesIO(data), WHOLE) for n in range(SHARD)) for part in parts]


def worker(line: Connection) -> None:
    """Decode what comes down the line, for so many seconds, and send back how many clips that were."""
    while (asked := line.recv()) is not None:
        way, data = asked
        decoded(way, data)
        started, clips = time.perf_counter(), 0
        while time.perf_counter() - started < FOR_S:
            decoded(way, data)
            clips += SHARD
        line.send(clips / (time.perf_counter() - started))


def main(rounds: int) -> None:
    print(f"{date.today()}: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python ", end="")
    print(f"{platform.python_version()}, {WORKERS} workers, {rounds} rounds of {FOR_S:g} s each\n")
    context = get_context("spawn")
    lines = []
    for _ in range(WORKERS):
        here, there = context.Pipe()
        context.Process(target=worker, args=(there,), daemon=True).start()
        lines.append(here)
    print("| 3 s clips | in the worker, clips/s | behind the fence, clips/s | ratio (range) |")
    print("|---|---|---|---|")
    for name, (format, rate_hz) in FORMATS.items():
        data = sound_of(format, rate_hz)
        assert all(map(np.array_equal, decoded("in the worker", data), decoded("behind the fence", data)))
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in list(WAYS)[:: 1 if number % 2 else -1]:
                for line in lines:
                    line.send((way, data))
                found[way].append(sum(line.recv() for line in lines))
        plain, fenced = found.values()
        ratios = [one / other for one, other in zip(fenced, plain, strict=True)]
        print(f"| {name} | {statistics.median(plain):,.0f} | {statistics.median(fenced):,.0f} ", end="")
        print(f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |", flush=True)
    for line in lines:
        line.send(None)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
