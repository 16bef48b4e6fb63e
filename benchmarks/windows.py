"""Windows as positions beside windows that are copied out; Whisper's states beside a one-by-one loop.

    python benchmarks/windows.py [ROUNDS]

whisper-tiny's shape (4 blocks of 384) with random weights, saved to a folder; sound made of the shipped corpus. A way
to extract has the whole machine: one process with all threads, or one process with one thread for every core.
"""

import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from features import joined

from wavmill.pipeline.workspace import Workspace

RATE_HZ, CORES = 16_000, os.cpu_count() or 1
SETS = {"short, 1 to 3 s": (16, 1.0, 3.0), "long, 60 to 90 s": (4, 60.0, 90.0)}  # clips, s, s
STATES = "musetalk-v1"


def clips(count: int, least_s: float, most_s: float) -> list[np.ndarray]:
    """Shipped words in a seeded order, joined."""
    lots = np.random.default_rng(1)
    return joined((lots.uniform(least_s, most_s, count) * RATE_HZ).astype(int), lots)


def save_net(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    size = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 4), ("attention_heads", 6), ("ffn_dim", 1536))
    }
    transformers.WhisperModel(transformers.WhisperConfig(d_model=384, num_mel_bins=80, **size)).save_pretrained(folder)


# ---- Whisper --------------------------------------------------------------------------------------------------------


def one_by_one(folder: str) -> Any:
    """Audio2Feature's loop over transformers' encoder: 30 s at a time, states stacked, cut to what counts."""
    import torch
    import transformers

    from wavmill.model.whisper_mel import v1

    encoder = transformers.WhisperModel.from_pretrained(folder).eval().encoder
    last: list[Any] = []
    encoder.layers[-1].register_forward_hook(lambda _m, _i, out: last.append(out))

    @torch.inference_mode()
    def extract(waves: list[np.ndarray]) -> list[np.ndarray]:
        made = []
        for wave in waves:
            states = []
            for mel, steps in v1(wave, 80):
                last.clear()
                found = encoder(torch.from_numpy(mel)[None], output_hidden_states=True).hidden_states
                block = last[0][0] if isinstance(last[0], tuple) else last[0]
                states.append(torch.stack([*found[:-1], block.reshape(found[-1].shape)], 2)[0, :steps])
            made.append(torch.cat(states).numpy())
        return made

    return extract


def ours(folder: str) -> Any:
    from wavmill.pipeline.features.whisper import Whisper

    return Whisper(model=folder, states=STATES).resolved().open()


def worker(line: Any, opener: str, folder: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    extract = globals()[opener](folder)
    while (waves := line.recv()) is not None:
        started = time.perf_counter()
        made = extract(waves)
        line.send((time.perf_counter() - started, made))


class Way:
    """A way to extract, open in as many processes as it takes."""

    def __init__(self, opener: str, folder: str, processes: int) -> None:
        context, self.lines = multiprocessing.get_context("spawn"), []
        for _ in range(processes):
            here, there = context.Pipe()
            context.Process(target=worker, args=(there, opener, folder, CORES // processes), daemon=True).start()
            self.lines.append(here)
        self(clips(len(self.lines), 1.0, 1.0))

    def __call__(self, waves: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """Seconds until the last process is done, and the states in the clips' order."""
        for share, line in enumerate(self.lines):
            line.send(waves[share :: len(self.lines)])
        made: list[Any] = [None] * len(waves)
        took = []
        for share, line in enumerate(self.lines):
            seconds, made[share :: len(self.lines)] = line.recv()
            took.append(seconds)
        return max(took), made


def whisper(folder: str, rounds: int) -> None:
    from wavmill.model.quantization.agreement import relative

    ways = {
        "one by one, transformers, all threads": Way("one_by_one", folder, 1),
        "one by one, a process per core": Way("one_by_one", folder, CORES),
        "wavmill": Way("ours", folder, CORES),
    }
    print(
        "## Whisper's states\n\n| clips | | s of audio per s | 30 s segments per s | times one by one | range | ",
        end="",
    )
    print("relative difference, worst clip |\n|---|---|---|---|---|---|---|")
    for called, (count, least_s, most_s) in SETS.items():
        waves = clips(count, least_s, most_s)
        seconds, segments = sum(map(len, waves)) / RATE_HZ, sum(-(-len(wave) // 480_000) for wave in waves)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        made: dict[str, list[np.ndarray]] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                took, made[name] = way(waves)
                spent[name].append(took)
        first = next(iter(ways))
        for name, took_each in spent.items():
            ratios = [one / other for one, other in zip(spent[first], took_each, strict=True)]
            apart = max(relative(one, other) for one, other in zip(made[name], made[first], strict=True))
            best = statistics.median(took_each)
            print(f"| {called} | {name} | {seconds / best:.1f} | {segments / best:.2f} ", end="")
            print(f"| {statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} ", end="")
            print(f"| {apart:.0e} |", flush=True)
    for way in ways.values():
        for line in way.lines:
            line.send(None)


# ---- windows --------------------------------------------------------------------------------------------------------


def windows(root: Path, folder: str, rounds: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wavmill.pipeline.exports.clips import Clips
    from wavmill.pipeline.exports.draws import Single
    from wavmill.pipeline.exports.samples import MuseTalkSamples
    from wavmill.pipeline.protocol.commit import parquet_bytes
    from wavmill.pipeline.rows import arrays_of, column_of, ragged, replace
    from wavmill.pipeline.windows import MuseTalk
    from wavmill.pipeline.windows.gather import gather

    choice, spent = MuseTalk(fps=25), []
    for _ in range(rounds):
        started, count = time.perf_counter(), 0
        for steps in range(50, 1550, 5):
            count += len(choice.positions(steps, steps / 50, Fraction(25)))
        spent.append(count / (time.perf_counter() - started))
    print(f"\n## Windows\n\nMade: {statistics.median(spent):,.0f} a second in one process.")

    job = milled(root, folder)
    table = pq.read_table(Path(job.address) / "v1" / "data")
    layers, dim = 5, 384
    held = [frames.reshape(len(frames), layers, dim) for frames in arrays_of(table["feature"])]
    rows = arrays_of(table["window"])
    copied = [
        np.stack([gather(frames, one) for one in some]).reshape(len(some), -1)
        for frames, some in zip(held, rows, strict=True)
    ]
    kind = ragged(np.float32, 10 * layers * dim)
    seconds = float(np.sum(table["seconds"].to_numpy()))
    with_copies = replace(table, "window", column_of(copied, kind)).drop_columns(["feature"])
    at_rest = {"positions": parquet_bytes(table), "copies": parquet_bytes(with_copies)}
    plain = {"positions": table.nbytes, "copies": with_copies.nbytes}
    read: dict[str, list[float]] = {name: [] for name in at_rest}
    for _ in range(rounds):
        for name, data in at_rest.items():
            started = time.perf_counter()
            pq.read_table(pa.BufferReader(data), use_threads=False)
            read[name].append(seconds / (time.perf_counter() - started))
    print("\n| per second of sound, float32 | MB as Parquet | MB in memory | s of sound read per s, one thread |")
    print("|---|---|---|---|")
    for name, called in (("positions", "features and positions"), ("copies", "windows copied out")):
        print(f"| {called} | {len(at_rest[name]) / seconds / 1e6:.3f} | {plain[name] / seconds / 1e6:.2f} ", end="")
        print(f"| {statistics.median(read[name]):,.0f} |")

    clips_of = Clips(job.address, root / "cache")
    items = MuseTalkSamples(clips_of, Single(clips_of.frames, per_epoch=2000))
    drawn, gathered = [], []
    longest = int(np.argmax(clips_of.frames))
    clip = clips_of[longest]
    for epoch in range(rounds):
        items.epoch, started = epoch, time.perf_counter()
        for number in range(len(items)):
            items[number]
        drawn.append(len(items) / (time.perf_counter() - started))
        started = time.perf_counter()
        for _ in range(100):
            for one in clip.window:
                gather(clip.feature, one)
        gathered.append(100 * len(clip.window) / (time.perf_counter() - started))
    print(
        f"\nGathered as views: {statistics.median(gathered):,.0f} a second; samples drawn and joined, in one process: "
    )
    print(f"{statistics.median(drawn):,.0f} a second, in random order over the dataset.")


def milled(root: Path, folder: str) -> Any:
    import soundfile

    from wavmill.cluster.connect import connect
    from wavmill.pipeline.execution.ray_executor import RayExecutor
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.load import parse_job
    from wavmill.pipeline.protocol.plan import make_plans
    from wavmill.pipeline.run import run

    (root / "in").mkdir()
    for number, wave in enumerate(clips(12, 5.0, 30.0)):
        soundfile.write(root / "in" / f"{number}.flac", wave, RATE_HZ)
    job = resolve(parse_job(
        f"name: talking\nsource: {{kind: files, path: {root}/in}}\nstore: {root}/out\n"
        f"feature: {{kind: whisper, model: {folder}, states: {STATES}}}\nwindow: {{kind: musetalk, fps: 25}}\n"
    ))  # fmt: skip
    run(Workspace(job), make_plans(Workspace(job)), lambda *_: RayExecutor(lambda: connect("local")))
    return job


def main(rounds: int) -> None:
    import torch
    import transformers

    root = Path(tempfile.mkdtemp(prefix="windows-"))
    try:
        save_net(root / "net")
        print(f"{date.today()}, {platform.processor() or platform.machine()}, {CORES} cores, torch ", end="")
        print(f"{torch.__version__}, transformers {transformers.__version__}; medians of {rounds} rounds\n")
        whisper(str(root / "net"), rounds)
        windows(root, str(root / "net"), rounds)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
