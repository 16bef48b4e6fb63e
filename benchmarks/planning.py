"""How long and how much memory planning takes, and how both grow: N files on disk, planned, planned again, and with 1 %
more. Each planning is a process of its own, so that its peak is its own; files are hard links, 1,000 to a folder, so
that ten million fit on any disk with a few GB to spare (not on tmpfs, which counts each as an inode).

python benchmarks/planning.py 10000000          # 10^4, 10^5, 10^6, 10^7; a second argument keeps the corpora there
"""

import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wavmill.pipeline.workspace import Workspace

FOLDER_FILES = 1000
RATE_HZ, SECONDS = 16_000, 4
FEWEST = 10_000
STEPS = ("list", "order and compare", "estimate", "cut", "write")


def wav_header() -> bytes:
    """A WAV of 4 s whose samples are a hole in the file."""
    size = 2 * RATE_HZ * SECONDS
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + fmt + struct.pack("<4sI", b"data", size)


def make_folder(folder: Path, files: int) -> None:
    folder.mkdir(parents=True)
    first, header = folder / "utterance0000.wav", wav_header()
    with first.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2 * RATE_HZ * SECONDS)
    for number in range(1, files):
        os.link(first, folder / f"utterance{number:04d}.wav")


def make_corpus(root: Path, files: int, name: str = "speaker") -> None:
    for number in range(-(-files // FOLDER_FILES)):
        make_folder(root / f"{name}{number:06d}", min(FOLDER_FILES, files - number * FOLDER_FILES))


def planned(corpus: Path, store: Path) -> dict[str, Any]:
    """What one make_plans costs: CPU seconds by step, and all of it in wall seconds and peak bytes."""
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.load import parse_job
    from wavmill.pipeline.protocol import plan
    from wavmill.pipeline.sources.files import Files

    spent: dict[str, float] = defaultdict(float)

    def timed(owner: Any, name: str, step: str) -> None:
        work = getattr(owner, name)

        def measured(*args: Any, **options: Any) -> Any:
            before, inner = time.process_time(), sum(spent.values())
            made = work(*args, **options)
            spent[step] += time.process_time() - before - (sum(spent.values()) - inner)  # a step inside counts there
            return made

        setattr(owner, name, measured)

    def objects(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def measured(*args: Any) -> Iterator[Any]:
            tables = work(*args)
            while True:
                before = time.process_time()
                table = next(tables, None)
                spent["list"] += time.process_time() - before
                if table is None:
                    return
                yield table

        return measured

    Files.objects = objects(Files.objects)  # type: ignore[method-assign]
    timed(Files, "seconds", "estimate")
    timed(plan, "cut", "cut")
    timed(plan, "put_table", "write")
    timed(plan, "unplanned", "order and compare")
    text = f"name: big\nsource: {{kind: files, path: {corpus}}}\nfeature: {{kind: mfcc}}\nstore: {store}\n"
    job = resolve(parse_job(text))
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    before, cpu, wall = peak(), time.process_time(), time.perf_counter()
    plans = plan.make_plans(Workspace(job))
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "peak": peak(),
        "above": peak() - before,
        "plans": len(plans),
        "objects": plans[-1].head.objects.rows,
        "shards": plans[-1].shards.num_rows,
        "steps": spent,
    }


def measured(corpus: Path, store: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(corpus), str(store)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def exponent(sizes: list[int], costs: list[float]) -> str:
    """b of cost = a * files ** b, by least squares of the logarithms."""
    some = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
    return f"{np.polyfit(*np.log(np.array(some, float).T), 1)[0]:.2f}" if len(some) > 1 else "-"


def cell(run: dict[str, Any]) -> str:
    return f"{run['wall']:.1f} s ({run['cpu']:.1f} s), {run['peak']:.0f} MB"


def main(most: int, where: Path | None) -> None:
    sizes = [FEWEST * 10**power for power in range(9) if FEWEST * 10**power <= most]
    root = where or Path(tempfile.mkdtemp(prefix="plan-"))
    ways: dict[str, list[dict[str, Any]]] = {"first plan": [], "again, nothing new": [], "1 % more files": []}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}\n")
    print("| files | shards | " + " | ".join(f"{way}: wall (CPU), peak" for way in ways) + " |\n|---|---|---|---|---|")
    try:
        for files in sizes:
            corpus, store = root / str(files), Path(tempfile.mkdtemp(prefix="store-", dir=root.parent))
            if not corpus.exists():
                make_corpus(corpus, files)
            first, again = measured(corpus, store), measured(corpus, store)
            make_corpus(corpus, files // 100, "more")
            grown = measured(corpus, store)
            for folder in corpus.glob("more*"):
                shutil.rmtree(folder)
            shutil.rmtree(store)
            assert (first["objects"], again["plans"], grown["objects"]) == (files, 1, files // 100)
            for runs, run in zip(ways.values(), (first, again, grown), strict=True):
                runs.append(run)
            print(f"| {files:,} | {first['shards']:,} | {cell(first)} | {cell(again)} | {cell(grown)} |", flush=True)
    finally:
        if where is None:
            shutil.rmtree(root)
    print(f"\nCPU seconds at {sizes[-1]:,} files, and the exponent from {sizes[0]:,} files on\n")
    print("| | " + " | ".join(ways) + " |\n|---|---|---|---|")
    for step in STEPS:
        costs = [[run["steps"].get(step, 0.0) for run in runs] for runs in ways.values()]
        print(f"| {step} | " + " | ".join(f"{cost[-1]:.1f} s, {exponent(sizes, cost)}" for cost in costs) + " |")
    for name, key, unit in (("all", "cpu", "s"), ("memory above the start", "above", "MB")):
        costs = [[run[key] for run in runs] for runs in ways.values()]
        print(f"| {name} | " + " | ".join(f"{cost[-1]:.1f} {unit}, {exponent(sizes, cost)}" for cost in costs) + " |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(planned(*map(Path, sys.argv[2:]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
