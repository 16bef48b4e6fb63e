"""Run by test_products.py under each of OpenBLAS's kernels: is a frame's number the same wherever it stands?

python kernels.py    prints the kernels' name and the ways that were taken, and ends with 1 where something depends
on a place.
"""

import sys

import numpy as np

from wavmill.model import whisper_mel
from wavmill.model.batch_invariant import blockwise
from wavmill.model.products import blas_kernels, product_with, used
from wavmill.model.quantization.kmeans import assign
from wavmill.pipeline.features.mel import Mel


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def failures() -> list[str]:
    found = []
    for inner, columns in ((39, 100), (39, 97), (13, 31), (80, 500), (401, 80), (201, 80), (768, 99), (5, 1)):
        frames, right = normal(inner, 300, inner), normal(columns, columns, inner)
        right[columns // 2] = right[0]
        product = product_with(right)
        whole = blockwise(frames, product)
        if (whole[:, columns // 2] != whole[:, 0]).any():
            found.append(f"({inner}, {columns}): equal columns differ")
        if any((blockwise(frames[start:], product) != whole[start:]).any() for start in (1, 2, 3, 97, 255, 299)):
            found.append(f"({inner}, {columns}): a row depends on its place")
        if (assign(right, right)[[0, columns // 2]] != 0).any():
            found.append(f"({inner}, {columns}): a tie does not go to the lower code")
    wave = 0.1 * normal(0, 16_000)
    for flavour, hop in (("log", 320), ("wav2lip", 200)):
        [whole], [later] = (Mel(flavour=flavour).open()([some]) for some in (wave, wave[7 * hop :]))
        if (whole[7 + 5 : -5] != later[5:-5]).any():
            found.append(f"mel {flavour}: a frame depends on its place")
    whole, later = whisper_mel.log_mel(wave, 80), whisper_mel.log_mel(wave[160:], 80)
    if (whole[:, 1 + 3 : -3] != later[:, 3:-3]).any():
        found.append("Whisper's mel: a frame depends on its place")
    return found


if __name__ == "__main__":
    print(blas_kernels())
    wrong = failures()
    print(" ".join(sorted(used)))
    sys.exit("\n".join(wrong) or 0)
