"""Small jobs from the start of the process to its end: wavmill run on five files and on 600, beside a plain script.

    python benchmarks/small.py [ROUNDS]

The sound is the shipped corpus, joined into files of 5.2 s. The plain script is what one writes without wavmill: a
Pool of as many processes as cores over the same MFCC function, soundfile, one Parquet file; no plan, no checks, no
sandbox, no records, no report. Each round runs all of them in turn, after one that compiles the modules.
"""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from overhead import make_corpus

FILE_S = 5.2
PLAIN = """
import multiprocessing, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, soundfile
from wavmill.pipeline.features.mfcc import Mfcc

mfcc = Mfcc().open()

def one(path):
    wave, _ = soundfile.read(path, dtype="float32")
    [frames] = mfcc([wave])
    return path.name, frames.reshape(len(frames), -1)

if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).glob("*.flac"))
    with multiprocessing.Pool({cores}) as pool:
        names, features = zip(*pool.map(one, paths, chunksize=8))
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(features).ravel()), 39)
    offsets = np.cumsum([0, *map(len, features)]).astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), values)
    pq.write_table(pa.table({{"clip": names, "feature": column}}), sys.argv[2], compression="zstd")
"""
JOB = "name: small\nsource: {{kind: files, path: {corpus}}}\nfeature: {{kind: mfcc}}\nstore: {store}\n"


def timed(command: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - started


def wavmill(root: Path, corpus: str, env: dict[str, str]) -> float:
    shutil.rmtree(root / "store", ignore_errors=True)
    (root / "job.yaml").write_text(JOB.format(corpus=root / corpus, store=root / "store"))
    return timed([sys.executable, "-m", "wavmill.cluster.cli", "run", str(root / "job.yaml")], env)


def main(rounds: int) -> None:
    cores = len(os.sched_getaffinity(0))
    root = Path(tempfile.mkdtemp(prefix="small-"))
    # As it is installed: modules that are compiled, and found from anywhere.
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONPYCACHEPREFIX": str(root / "compiled")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        for name, files in (("five", 5), ("many", 600)):
            make_corpus(root / name, files * FILE_S / 3600, FILE_S)
        (root / "plain.py").write_text(PLAIN.format(cores=cores))
        plain = [sys.executable, str(root / "plain.py"), str(root / "many"), str(root / "plain.parquet")]
        ways = {
            "wavmill run, 5 files": lambda: wavmill(root, "five", env),
            "wavmill run, 600 files (52 min)": lambda: wavmill(root, "many", env),
            f"plain Pool({cores}), 600 files": lambda: timed(plain, env),
        }
        for run in ways.values():
            run()
        took: dict[str, list[float]] = {name: [] for name in ways}
        loads = [os.getloadavg()[0]]
        for _ in range(rounds):
            for name, run in ways.items():
                took[name].append(run())
            loads.append(os.getloadavg()[0])
        print(f"{platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}; "
              f"load average {min(loads):.1f} to {max(loads):.1f}")  # fmt: skip
        for name, seconds in took.items():
            print(f"{name:34} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
        _, many, bare = (statistics.median(seconds) for seconds in took.values())
        print(f"600 files, wavmill / plain: {many / bare:.2f}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
