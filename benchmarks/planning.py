"""How long and how much memory planning takes: N files on disk, listed, cut into shards, written, planned again.

python benchmarks/planning.py 1000000
"""

import resource
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

FOLDER_FILES = 1000
RATE_HZ, SECONDS = 16_000, 4


def wav_header() -> bytes:
    """A WAV of 4 s whose samples are a hole in the file: a million of them fit on any disk."""
    size = 2 * RATE_HZ * SECONDS
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + fmt + struct.pack("<4sI", b"data", size)


def main(files: int) -> None:
    root = Path(tempfile.mkdtemp(prefix="plan-"))
    try:
        header = wav_header()
        for number in range(files):
            folder = root / "corpus" / f"speaker{number // FOLDER_FILES:06d}"
            if number % FOLDER_FILES == 0:
                folder.mkdir(parents=True)
            with (folder / f"utterance{number % FOLDER_FILES:04d}.wav").open("wb") as file:
                file.write(header)
                file.truncate(len(header) + 2 * RATE_HZ * SECONDS)
        from pipeline.job import resolve
        from pipeline.jobfile import parse_job
        from pipeline.plan import make_plans

        text = (
            f"name: big\nsource: {{kind: files, path: {root}/corpus}}\nfeature: {{kind: mfcc}}\nstore: {root}/store\n"
        )
        job = resolve(parse_job(text))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        [plan] = make_plans(job)
        first_s = time.perf_counter() - started
        again = time.perf_counter()
        assert len(make_plans(job)) == 1
        again_s = time.perf_counter() - again
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("| files | hours | shards | first plan | planned again, nothing new | peak memory (before planning) |")
        print("|---|---|---|---|---|---|")
        print(
            f"| {files:,} | {plan.said['seconds'] / 3600:,.0f} | {plan.shards.num_rows:,} | {first_s:.1f} s "
            f"| {again_s:.1f} s | {peak / 1024:.0f} MB ({before / 1024:.0f} MB) |"
        )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
