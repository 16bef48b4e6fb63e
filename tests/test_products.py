"""Products: equal rows and columns give equal bits at every place, by the first way that does so on this machine."""

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.model import products
from wavmill.model.batch_invariant import BLOCK_FRAMES, blockwise
from wavmill.model.quantization.kmeans import assign

ROOT = Path(__file__).parents[1]
KERNELS = {
    "x86_64": ("Prescott", "Nehalem", "Sandybridge", "Haswell", "SkylakeX"),
    "aarch64": ("ARMV8", "NEOVERSEN1", "NEOVERSEV1", "THUNDERX2T99"),
}
CANNOT_RUN = {-4, 132}  # killed by an instruction that the processor does not have
quick = settings(deadline=None, max_examples=40)
SHAPES = ((39, 100), (401, 80), (6, 8))


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@cache
def under(kernels: str) -> tuple[int, str, str]:
    """kernels.py with these kernels of OpenBLAS: exit code, what it printed, what it found wrong."""
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernels, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/kernels.py"], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kernels", KERNELS.get(platform.machine(), ()))
def test_a_frame_s_numbers_do_not_depend_on_its_place_under_any_kernels_of_openblas(kernels):
    code, _, wrong = under(kernels)
    if code in CANNOT_RUN:
        pytest.skip(f"this processor cannot run {kernels}")
    assert code == 0, wrong


def test_numpy_is_not_taken_where_its_kernels_depend_on_the_place():
    _, told, _ = under("Haswell")
    if "openblas Haswell" not in told:
        pytest.skip("these kernels do not run here")
    assert "torch" in told or "terms" in told


def exact(right):
    """The way whose order of sums is its own: nothing to find."""
    return products.WAYS["terms"](right)


def with_flaw(at):
    """A way that adds the terms of some elements in the opposite order: those that ``at`` picks."""

    def way(right):
        def product(block):
            made, other = np.zeros((2, len(block), len(right)), np.float32)
            for d in range(block.shape[1]):
                made += block[:, d, None] * right[:, d]
                other += block[:, -1 - d, None] * right[:, -1 - d]
            made[at] = other[at]
            return made

        return product

    return way


FLAWS = {
    "one row": np.s_[7],
    "the last row": np.s_[-1],
    "rows of a tile": np.s_[3::16],
    "half of the rows": np.s_[128:],
    "one column": np.s_[:, 5],
    "the last column": np.s_[:, -1],
    "columns of a tile": np.s_[:, ::4],
    "the corner of a tile": np.s_[-16:, -4:],
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("flaw", FLAWS)
def test_the_probe_rejects_a_product_with_another_order_of_sums_at(flaw, shape):
    assert not products.holds(with_flaw(FLAWS[flaw]), *shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_probe_accepts_a_product_that_depends_on_no_place(shape):
    assert products.holds(exact, *shape)
    assert products.holds(with_flaw(np.s_[:]), *shape)  # the opposite order everywhere is no flaw


@pytest.fixture
def ways(monkeypatch):
    """Sets the ways of this process, and forgets what was chosen before and after."""

    def put(**found):
        monkeypatch.setattr(products, "WAYS", {**found, "terms": products.WAYS["terms"]})
        products.way_for.cache_clear()

    yield put
    products.way_for.cache_clear()


def test_the_first_way_that_holds_is_taken_for_each_shape(ways):
    def only_wide(right):
        return (exact if right.shape[1] > 100 else with_flaw(np.s_[9]))(right)

    ways(broken=with_flaw(np.s_[9]), wide=only_wide, good=exact)
    assert [products.way_for(*shape) for shape in SHAPES] == ["good", "wide", "good"]


def test_where_every_way_is_broken_the_slow_one_is_taken_and_codes_hold(ways):
    ways(broken=with_flaw(np.s_[9]), worse=with_flaw(np.s_[:, 1]))
    frames, centroids = normal(0, 300, 39), normal(1, 40, 39)
    centroids[1] = centroids[0]
    codes = assign(np.concatenate([frames, centroids[:2]]), centroids)
    assert products.way_for(39, 40) == "terms" and codes[-2:].tolist() == [0, 0]
    distances = ((frames[:, None].astype(float) - centroids.astype(float)) ** 2).sum(2)
    assert (codes[:300] == distances.argmin(1)).all()


def test_which_way_was_taken_is_noted_at_every_product_and_not_only_at_the_first(ways):
    ways(good=exact)
    product = products.product_with(normal(0, 5, 3))
    for _ in range(2):
        products.used.clear()
        blockwise(normal(1, 4, 3), product)
        assert products.used == {"good"}


@quick
@given(
    st.sampled_from(sorted(products.WAYS)),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 1 << 30),
)
def test_every_way_gives_the_product(way, inner, columns, seed):
    block, right = normal(seed, BLOCK_FRAMES, inner), normal(seed + 1, columns, inner)
    found = products.WAYS[way](right)(block)
    assert found.dtype == np.float32
    assert np.allclose(found, block.astype(float) @ right.T.astype(float), rtol=0, atol=1e-5 * (1 + inner))


def test_the_slow_way_s_bits_are_those_of_sums_in_order_in_double_precision():
    block, right = normal(2, BLOCK_FRAMES, 7), normal(3, 5, 7)
    found = products.WAYS["terms"](right)(block)
    for row, column in ((0, 0), (255, 4), (17, 2)):
        total = 0.0
        for a, b in zip(block[row].tolist(), right[column].tolist(), strict=True):
            total += a * b
        assert found[row, column] == np.float32(total)
