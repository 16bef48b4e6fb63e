"""What Ray and the commit cost: an mfcc job over an hour of sound against the bare loop over the same functions.

    python benchmarks/overhead.py [ROUNDS]

The sound is the shipped corpus, joined into 10 s FLAC files. Every round runs, in turn: the bare loop in one
process, the same loop in as many processes as there are cores, and run() on a local Ray; start-up is stated apart.
"""

import multiprocessing
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from wavmill.pipeline.workspace import Workspace

HOURS, FILE_S, RATE_HZ = 1.0, 10, 16_000
TINY_SHARDS = 300


def make_corpus(root: Path, hours: float, file_s: float) -> None:
    """Clips of the shipped corpus in a seeded order, joined to files of one length."""
    import soundfile

    words = [soundfile.read(path, dtype="float32")[0] for path in sorted(corpus_files())]
    order = np.random.default_rng(0)
    root.mkdir(parents=True)
    for number in range(round(hours * 3600 / file_s)):
        pieces, samples = [], 0
        while samples < file_s * RATE_HZ:
            pieces.append(words[order.integers(len(words))])
            samples += len(pieces[-1])
        soundfile.write(root / f"{number:05d}.flac", np.concatenate(pieces)[: int(file_s * RATE_HZ)], RATE_HZ)


def corpus_files() -> list[Path]:
    """The shipped words that are 16 kHz mono FLAC."""
    import soundfile

    found = (Path(__file__).parents[1] / "examples" / "corpus").glob("[a-z]*/*.flac")
    return [path for path in found if path.parent.name != "broken" and soundfile.info(path).samplerate == RATE_HZ]


def job_over(root: Path, corpus: str, name: str) -> Any:
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.load import parse_job

    where = f"source: {{kind: files, path: {root}/{corpus}}}\nstore: {root}/store-{name}\n"
    return resolve(parse_job(f"name: {name}\n{where}feature: {{kind: mfcc}}\n"))


def stages(job: Any) -> list[Any]:
    from wavmill.pipeline.execution.apply import Apply
    from wavmill.pipeline.execution.read import Read
    from wavmill.pipeline.protocol.commit import Commit
    from wavmill.pipeline.rows import CONTEXT

    return [Read(job), Apply([job.feature], ["audio", *CONTEXT]), Apply([]), Commit(Workspace(job))]


def mill_one(given: tuple[Any, dict]) -> list[float]:
    """One shard through every stage; seconds per stage."""
    import pyarrow as pa

    job, shard = given
    rows, spent = pa.Table.from_pylist([shard]), []
    for stage in stages(job):
        started = time.perf_counter()
        rows = stage(rows)
        spent.append(time.perf_counter() - started)
    return spent


def bare(job: Any, processes: int) -> tuple[float, np.ndarray]:
    """The loop without Ray, publishing included; its seconds, and the seconds per stage."""
    from wavmill.pipeline.protocol.plan import make_plans, todo_of
    from wavmill.pipeline.protocol.publish import publish

    plans = make_plans(Workspace(job))
    todo = [(job, shard) for shard in todo_of(plans, set())]
    if processes == 1:
        mill_one((job, todo[0][1]))  # imports and open() are start-up
        started = time.perf_counter()
        spent = [mill_one(one) for one in todo]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.map(mill_one, todo[:processes], chunksize=1)
            started = time.perf_counter()
            spent = pool.map(mill_one, todo, chunksize=1)
    publish(Workspace(job), plans)
    return time.perf_counter() - started, np.sum(spent, axis=0)


def with_ray(job: Any) -> tuple[float, float]:
    """run(), publishing included: seconds to the end, and of these the seconds until the first shard was done."""
    from wavmill.cluster.connect import connect
    from wavmill.pipeline.execution.ray_executor import RayExecutor
    from wavmill.pipeline.protocol.plan import make_plans
    from wavmill.pipeline.run import run

    plans = make_plans(Workspace(job))
    first: list[float] = []
    started = time.perf_counter()
    run(
        Workspace(job),
        plans,
        lambda *_: RayExecutor(lambda: connect("local")),
        lambda row: first.append(time.perf_counter() - started),
    )
    return time.perf_counter() - started, first[0]


def main(rounds: int) -> None:
    import ray

    from wavmill.cluster.connect import connect

    cores = multiprocessing.cpu_count()
    root = Path(tempfile.mkdtemp(prefix="overhead-"))
    try:
        make_corpus(root / "hour", HOURS, FILE_S)
        make_corpus(root / "tiny", TINY_SHARDS * 0.5 / 3600, 0.5)
        started = time.perf_counter()
        connect("local")
        init_s = time.perf_counter() - started
        with_ray(job_over(root, "tiny", "warm"))  # worker processes start here
        figures: dict[str, list[float]] = {"one": [], "all": [], "ray": [], "first": [], "tiny": [], "tiny ray": []}
        per_stage = []
        for number in range(rounds):
            one_s, spent = bare(job_over(root, "hour", f"one{number}"), 1)
            all_s, _ = bare(job_over(root, "hour", f"all{number}"), cores)
            ray_s, first_s = with_ray(job_over(root, "hour", f"ray{number}"))
            tiny_s, tiny_spent = bare(job_over(root, "tiny", f"tiny{number}"), 1)
            tiny_ray_s, _ = with_ray(job_over(root, "tiny", f"tinyray{number}"))
            for name, value in zip(figures, (one_s, all_s, ray_s, first_s, tiny_s, tiny_ray_s), strict=True):
                figures[name].append(value)
            per_stage.append([*spent, tiny_spent[-1]])
        median = {name: statistics.median(values) for name, values in figures.items()}
        ratios = [r / a for r, a in zip(figures["ray"], figures["all"], strict=True)]
        singles = [r / o for r, o in zip(figures["ray"], figures["one"], strict=True)]
        stage_s = np.median(per_stage, axis=0)
        print(
            f"{platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}, ", end=""
        )
        print(f"Ray {ray.__version__}, medians of {rounds} rounds\n")
        print("| mfcc over an hour of sound | seconds | times real time |\n|---|---|---|")
        for name, said in (
            ("one", "bare loop, 1 process"),
            ("all", f"bare loop, {cores} processes"),
            ("ray", "run() on Ray"),
        ):
            print(f"| {said} | {median[name]:.1f} | {HOURS * 3600 / median[name]:,.0f} |")
        for processes, found in ((cores, ratios), (1, singles)):
            spread = f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"
            print(f"\nrun() / bare loop, {processes} process{'es' * (processes > 1)}: {spread}", end="")
        print()
        print(
            f"start-up apart: ray.init {init_s:.1f} s; of run(), {median['first']:.1f} s until the first shard was done"
        )
        print(f"of the bare loop: decode {stage_s[0]:.1f} s, mfcc {stage_s[1]:.1f} s, commit {stage_s[3]:.2f} s")
        tiny_ms = [1000 * seconds / TINY_SHARDS for seconds in (median["tiny"], stage_s[4], median["tiny ray"])]
        print(f"per shard of one 0.5 s clip, {TINY_SHARDS} shards: bare loop {tiny_ms[0]:.0f} ms, ", end="")
        print(f"of which commit {tiny_ms[1]:.1f} ms; run() {tiny_ms[2]:.0f} ms")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
