"""Products: equal rows and columns give equal bits at every place, by the first way that does so on this machine."""

import os
import platform
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import HELPERS, ROOT

from wavmill.model import products
from wavmill.model.batch_invariant import BLOCK_FRAMES, blockwise
from wavmill.model.quantization.kmeans import assign

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
        [sys.executable, HELPERS / "kernels.py"], env=environment, capture_output=True, text=True, check=False
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
    assert "torch" in told or "integers" in told


def exact(right):
    """The way whose sums are exact: nothing to find."""
    return products.WAYS["integers"](right)


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
        monkeypatch.setattr(products, "WAYS", {**found, "integers": products.WAYS["integers"]})
        products.way_for.cache_clear()

    yield put
    products.way_for.cache_clear()


def test_the_first_way_that_holds_is_taken_for_each_shape(ways):
    def only_wide(right):
        return (exact if right.shape[1] > 100 else with_flaw(np.s_[9]))(right)

    ways(broken=with_flaw(np.s_[9]), wide=only_wide, good=exact)
    assert [products.way_for(*shape) for shape in SHAPES] == ["good", "wide", "good"]


def test_where_every_other_way_is_broken_integers_are_taken_and_codes_hold(ways):
    ways(broken=with_flaw(np.s_[9]), worse=with_flaw(np.s_[:, 1]))
    frames, centroids = normal(0, 300, 39), normal(1, 40, 39)
    centroids[1] = centroids[0]
    codes = assign(np.concatenate([frames, centroids[:2]]), centroids)
    assert products.way_for(39, 40) == "integers" and codes[-2:].tolist() == [0, 0]
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


@quick
@given(st.integers(1, 300) | st.sampled_from([16_384, 20_000]), st.integers(1, 20), st.integers(0, 1 << 30))
def test_products_in_integers_have_the_same_bits_in_whatever_order_their_terms_are_added(inner, columns, seed):
    draw = np.random.default_rng(seed)
    block, right = normal(seed, 8, inner), normal(seed + 1, columns, inner)
    block *= (10.0 ** draw.integers(-30, 30, (8, 1))).astype(np.float32)  # rows that are much louder than others
    found = products.WAYS["integers"](right)(block)
    terms, columns_at = draw.permutation(inner), draw.permutation(columns)
    other = products.WAYS["integers"](right[columns_at][:, terms])(block[::-1, terms])
    assert (other == found[::-1, columns_at]).all()


def test_products_in_integers_are_as_close_as_float32_where_quiet_terms_stand_beside_loud_ones():
    block, right = normal(2, BLOCK_FRAMES, 401), np.abs(normal(3, 80, 401))
    block = np.abs(block) * (10.0 ** np.random.default_rng(4).integers(-6, 5, block.shape)).astype(np.float32)
    right[0, 1:] = 0  # a column that hears one band alone, and so a quiet one
    right_answer = block.astype(float) @ right.T.astype(float)
    assert np.allclose(products.WAYS["integers"](right)(block), right_answer, rtol=1e-6, atol=0)


def test_products_in_integers_of_what_is_not_finite_or_too_large_concern_their_own_row_alone():
    block, right = normal(5, 6, 3), normal(6, 2, 3)
    clean = products.WAYS["integers"](right)(block)
    block[1, 0], block[2], block[4] = np.nan, np.inf, 3e38
    found = products.WAYS["integers"](right * np.float32(100))(block)
    assert np.isnan(found[1:3]).all() and not np.isfinite(found[4]).all()
    assert np.allclose(found[[0, 3, 5]], 100 * clean[[0, 3, 5]], rtol=1e-5)


def test_torch_is_not_imported_for_a_product_that_is_over_before_its_import_would_be(ways):
    def must_not_be_tried(right):
        raise AssertionError("the import of torch costs two seconds")

    ways(numpy=with_flaw(np.s_[9]), torch=must_not_be_tried)
    assert {products.way_for(*shape) for shape in (*SHAPES, (39, 500), (401, 128))} == {"integers"}
    ways(numpy=with_flaw(np.s_[9]), torch=exact)
    assert products.way_for(768, 500) == "torch"
