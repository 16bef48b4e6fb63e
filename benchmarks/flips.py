"""What half precision does to HuBERT's features and tokens: flips per million frames, beside float32.

    python benchmarks/flips.py [MINUTES [FOLDER]]

Clips as in features.py, layer 9 of HuBERT Base with random weights, or of the checkpoint in FOLDER; 100 and 500 codes
by k-means on the same frames. On a processor without such units half precision is emulated: its numbers, not its speed.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from features import LAYER, clips, save_net


def main(minutes: float, given: str = "") -> None:
    from model.agreement import compare_tokens, near_ties, relative
    from model.kmeans import assign, fit
    from pipeline.features.hubert import HuBERT

    root = Path(tempfile.mkdtemp(prefix="flips-"))
    try:
        if not given:
            save_net(root)
        waves = clips(minutes)
        made = {}
        for dtype in ("float32", "bfloat16", "float16"):
            extract = HuBERT(model=given or str(root), layer=LAYER, dtype=dtype).resolved().open()
            made[dtype] = [features[:, 0] for features in extract(waves)]
        halved = [features.astype(np.float16).astype(np.float32) for features in made["float32"]]
        made["float32, at rest in float16"] = halved
        right = made.pop("float32")
        flat = np.concatenate(right)
        print(f"{len(waves)} clips, {len(flat):,} frames\n")
        print("| dtype | codes (perplexity) | relative error, worst clip | flips per million | ", end="")
        print("unit edit distance | near ties |\n|---|---|---|---|---|---|")
        for codes in (100, 500):
            centroids, _ = fit(flat, codes, 0)
            wanted = [assign(features, centroids) for features in right]
            for name, found in made.items():
                told = compare_tokens([assign(features, centroids) for features in found], wanted)
                apart = max(relative(one, other) for one, other in zip(found, right, strict=True))
                errors = np.linalg.norm(np.concatenate(found) - flat, axis=1)
                flips = f"{told.flips_per_million:,.0f}"
                print(f"| {name} | {codes} ({told.perplexity:.0f}) | {apart:.1e} | {flips} ", end="")
                print(f"| {told.unit_edit_distance:.2%} | {near_ties(flat, errors, centroids):.2%} |", flush=True)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, *sys.argv[2:3])
