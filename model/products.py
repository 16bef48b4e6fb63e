"""Matrix products whose every element has the same bits wherever its row and its column stand in the block.

Not every BLAS has that property: OpenBLAS's kernels for processors with AVX2 and without AVX-512 add the terms of one
element in another order at another place. So this machine's products are probed, once per process and shape, and the
first way that holds is taken. The choice depends on the machine and the shape alone, never on what ran before.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

BLOCK_FRAMES = 256  # rows of every block
PROBE_VECTORS = 8
LARGE = 1 << 15  # inner * columns above which one round shows as much as three of smaller products
USUAL_SHAPES = ((39, 100), (401, 80), (768, 500))  # (inner, columns): k-means on MFCC, mel, k-means on HuBERT

Product = Callable[[np.ndarray], np.ndarray]
used: set[str] = set()  # names of the ways taken since somebody cleared it


def product_with(right: np.ndarray) -> Product:
    """right (N, D) float32 -> a function block (256, D) float32 -> (256, N) float32, block @ right.T.

    Elements with equal rows and equal columns are equal to the bit. To be called with one thread (``one_blas_thread``).
    """
    name = way_for(right.shape[1], right.shape[0])
    way = WAYS[name](np.ascontiguousarray(right, np.float32))

    def product(block: np.ndarray) -> np.ndarray:
        used.add(name)
        return way(block)

    return product


@lru_cache(maxsize=256)
def way_for(inner: int, columns: int) -> str:
    """The name of the first way that holds on this machine for (256, inner) @ (inner, columns)."""
    with one_blas_thread():
        return next(name for name, way in WAYS.items() if name == LAST or holds(way, inner, columns))


def holds(way: Callable[[np.ndarray], Product], inner: int, columns: int) -> bool:
    """Whether equal rows and equal columns give equal elements, tried with a few vectors strewn over all places."""
    draw = np.random.default_rng(0)
    for _ in range(1 if inner * columns > LARGE else 3):
        rows, vectors = (draw.standard_normal((PROBE_VECTORS, inner), np.float32) for _ in range(2))
        row_of, vector_of = draw.integers(PROBE_VECTORS, size=BLOCK_FRAMES), draw.integers(PROBE_VECTORS, size=columns)
        found = way(vectors[vector_of])(rows[row_of])  # (256, columns)
        first_row, first_column = (first_of_each(places) for places in (row_of, vector_of))
        if (found != found[first_row][:, first_column]).any():
            return False
    return True


def first_of_each(places: np.ndarray) -> np.ndarray:
    """For each entry the index of the first entry that is equal to it."""
    _, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    return first[inverse]


def _by_numpy(right: np.ndarray) -> Product:
    return lambda block: block @ right.T


def _by_torch(right: np.ndarray) -> Product:
    """By MKL where torch has it. Its kernels may depend on how memory is aligned, so both sides lie in torch's own."""
    import torch

    weights, rows = torch.tensor(right), torch.empty((BLOCK_FRAMES, right.shape[1]))

    def product(block: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            rows.copy_(torch.from_numpy(block))
            made: np.ndarray = torch.mm(rows, weights.T).numpy()
            return made
        finally:
            torch.set_num_threads(before)

    return product


def _by_terms(right: np.ndarray) -> Product:
    """Term by term in double precision, in the order of the inner axis: the same bits on every machine, slowly."""
    terms = right.T.astype(float)  # (D, N)

    def product(block: np.ndarray) -> np.ndarray:
        total, term = np.zeros((2, len(block), len(right)))
        for column, row in zip(block.T.astype(float), terms, strict=True):
            total += np.multiply(column[:, None], row, out=term)
        return total.astype(np.float32)

    return product


WAYS: dict[str, Callable[[np.ndarray], Product]] = {"numpy": _by_numpy, "torch": _by_torch, "terms": _by_terms}
LAST = "terms"  # holds by construction


def one_blas_thread() -> Any:
    """A context in which numpy's BLAS has one thread: by more, sums are cut in other places."""
    return _blas().limit(limits=1, user_api="blas")


def blas_kernels() -> str:
    """Whose kernels numpy's BLAS takes on this processor, such as "openblas SkylakeX"."""
    found = (library for library in _blas().info() if library["user_api"] == "blas")
    return ", ".join(sorted({f"{one['internal_api']} {one.get('architecture', '')}".strip() for one in found}))


@lru_cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # finding the loaded libraries takes longer than a short clip's frames
