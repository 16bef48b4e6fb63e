"""Matrix work in blocks of one fixed shape, so that a frame's numbers cannot depend on how many frames it is among."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

BLOCK_FRAMES = 256


def blockwise(frames: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """frames (T, D) -> (T, ...): ``work`` applied to blocks (256, D), the last one filled up with zeros.

    BLAS chooses its kernels, and with them the order of its sums, by the shape of the product and the number of
    threads; here both are constant. ``work`` must treat every row by itself.
    """
    block = np.zeros((BLOCK_FRAMES, frames.shape[1]), np.float32)
    made = []
    with _blas().limit(limits=1, user_api="blas"):
        for start in range(0, len(frames), BLOCK_FRAMES):
            some = frames[start : start + BLOCK_FRAMES]
            block[: len(some)] = some
            made.append(work(block)[: len(some)].copy())
    return np.concatenate(made) if made else work(block)[:0]


@lru_cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # finding the loaded libraries takes longer than a short clip's frames
