"""What half precision does to HuBERT's features and tokens: flips per million frames, beside float32.

    python benchmarks/flips.py [MINUTES [FOLDER]]

Clips as in features.py, layer 9 of HuBERT Base with random weights, or of the checkpoint in FOLDER; 100 and 500 codes
by k-means on the same frames; a process per core. On a processor without such units half precision is emulated: its
numbers, not its speed.
"""

import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from features import CORES, LAYER, clips, save_net


def extracted(given: tuple[str, str, np.ndarray]) -> np.ndarray:
    from pipeline.features.hubert import HuBERT
    from pipeline.step import opened

    folder, dtype, wave = given
    return opened(HuBERT(model=folder, layer=LAYER, dtype=dtype).resolved())([wave])[0][:, 0]


def main(minutes: float, given: str = "") -> None:
    from model.agreement import compare_tokens, near_ties, relative
    from model.kmeans import assign, fit

    root = Path(tempfile.mkdtemp(prefix="flips-"))
    try:
        if not given:
            save_net(root)
        waves = clips(minutes)
        with multiprocessing.get_context("spawn").Pool(CORES) as pool:

            def made(dtype: str) -> list[np.ndarray]:
                started = time.perf_counter()
                found = pool.map(extracted, [(given or str(root), dtype, wave) for wave in waves], chunksize=1)
                print(f"{dtype}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
                return found

            right = made("float32")
            flat = np.concatenate(right)
            books = [(codes, fit(flat, codes, 0)[0]) for codes in (100, 500)]
            wanted = [[assign(features, centroids) for features in right] for _, centroids in books]
            print(f"{len(waves)} clips, {len(flat):,} frames\n")
            print("| dtype | codes (perplexity) | relative error, worst clip | flips per million | ", end="")
            print("unit edit distance | near ties |\n|---|---|---|---|---|---|", flush=True)
            halved = [features.astype(np.float16).astype(np.float32) for features in right]
            for name in ("float32, at rest in float16", "bfloat16", "float16"):
                found = made(name) if "," not in name else halved
                apart = max(relative(one, other) for one, other in zip(found, right, strict=True))
                errors = np.linalg.norm(np.concatenate(found) - flat, axis=1)
                for (codes, centroids), tokens in zip(books, wanted, strict=True):
                    told = compare_tokens([assign(features, centroids) for features in found], tokens)
                    print(f"| {name} | {codes} ({told.perplexity:.0f}) | {apart:.1e} ", end="")
                    print(f"| {told.flips_per_million:,.0f} | {told.unit_edit_distance:.2%} ", end="")
                    print(f"| {near_ties(flat, errors, centroids):.2%} |", flush=True)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, *sys.argv[2:3])
