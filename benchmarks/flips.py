"""What half precision does to HuBERT's features and tokens: flips per million frames, beside float32.

    python benchmarks/flips.py [MINUTES [FOLDER]]      (0: only what cutting a long clip does)

And what it does that a clip of 150 s is extracted in pieces. Clips as in features.py, layer 9 of HuBERT Base with
random weights, or of the checkpoint in FOLDER; 100 and 500 codes by k-means on the same frames; a process per core. On
a processor without such units half precision is emulated: its numbers, not its speed.
"""

import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from features import CORES, LAYER, RATE_HZ, clips, joined, save_net

LONG_S = 150


def extracted(given: tuple[str, str, np.ndarray]) -> np.ndarray:
    from wavmill.pipeline.execution.apply import open_step
    from wavmill.pipeline.features.hubert import HuBERT

    folder, dtype, wave = given
    return open_step(HuBERT(model=folder, layer=LAYER, dtype=dtype).resolved())([wave])[0][:, 0]


def cut(folder: str) -> None:
    """A clip of LONG_S in pieces, beside the same clip uncut."""
    from wavmill.model.quantization.agreement import compare_tokens, relative
    from wavmill.model.quantization.kmeans import assign, fit
    from wavmill.pipeline.features import hubert

    [wave] = joined([LONG_S * RATE_HZ], np.random.default_rng(2))
    pieces = extracted((folder, "float32", wave))
    hubert.CHUNK_FRAMES = LONG_S * 50
    whole = extracted((folder, "float32", wave))
    centroids, _ = fit(whole, 100, 0)
    told = compare_tokens([assign(pieces, centroids)], [assign(whole, centroids)])
    away = np.linalg.norm(pieces - whole, axis=1) / np.linalg.norm(whole, axis=1)
    print(f"{len(pieces):,} frames of {LONG_S} s in pieces: relative error {relative(pieces, whole):.1e}, ", end="")
    print(f"{np.median(away):.1e} in the median frame, {away.max():.1e} in the worst; ", end="")
    print(f"{told.flips_per_million:,.0f} flips per million of 100 codes (perplexity {told.perplexity:.0f}).\n")


def main(minutes: float, given: str = "") -> None:
    from wavmill.model.quantization.agreement import compare_tokens, near_ties, relative
    from wavmill.model.quantization.kmeans import assign, fit

    root = Path(tempfile.mkdtemp(prefix="flips-"))
    try:
        if not given:
            save_net(root)
        cut(given or str(root))
        if not minutes:
            return
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
