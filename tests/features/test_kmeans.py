"""Nearest centroids, the same for a frame wherever it stands; and a fit that finds what is there, every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.model.quantization.codebook import Codebook
from wavmill.model.quantization.kmeans import assign, fit, usage

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 1 << 30)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Frames (4000, 6) around 8 centres (8, 6) that are far from each other."""
    centres = 20 * normal(1, 8, 6)
    return centres[np.random.default_rng(2).integers(0, 8, 4000)] + 0.1 * normal(3, 4000, 6), centres


@pytest.fixture(scope="module")
def learnt(blobs):
    return fit(blobs[0], codes=8, seed=0)


@quick
@given(seeds, st.integers(0, 600), st.integers(1, 80), st.integers(1, 40))
def test_a_code_is_that_of_the_nearest_centroid_in_double_precision(seed, frames, codes, dim):
    x, centroids = normal(seed, frames, dim), normal(seed + 1, codes, dim)
    found = assign(x, centroids)
    distances = ((x[:, None].astype(float) - centroids.astype(float)) ** 2).sum(axis=2)  # (frames, codes)
    excess = np.take_along_axis(distances, found[:, None].astype(int), axis=1)[:, 0] - distances.min(axis=1)
    assert (excess <= 1e-5 * (1 + (x**2).sum(axis=1))).all()  # near ties may go either way


@quick
@given(seeds, st.lists(st.integers(0, 299), min_size=1, max_size=700), st.integers(1, 130))
def test_a_code_depends_on_its_frame_alone(seed, picked, codes):
    x, centroids = normal(seed, 300, 39), normal(seed + 1, codes, 39)
    assert (assign(x[picked], centroids) == assign(x, centroids)[picked]).all()


@quick
@given(seeds, st.integers(1, 600))
def test_a_product_depends_on_its_frame_alone_to_the_last_bit(seed, frames):
    from wavmill.model.batch_invariant import blockwise
    from wavmill.model.products import product_with

    x, product = normal(seed, 600, 39), product_with(normal(seed + 1, 100, 39))
    start = seed % (601 - frames)
    assert (blockwise(x[start : start + frames], product) == blockwise(x, product)[start:][:frames]).all()


def test_what_a_block_became_is_not_overwritten_by_the_next():
    from wavmill.model.batch_invariant import blockwise

    x = normal(0, 600, 3)
    assert (blockwise(x, lambda block: block) == x).all()


def test_no_frames_have_no_codes():
    found = assign(np.zeros((0, 5), np.float32), normal(0, 3, 5))
    assert found.shape == (0,) and found.dtype == np.int32


def test_half_precision_frames_are_compared_in_single_precision():
    x, centroids = normal(0, 100, 8).astype(np.float16), normal(1, 30, 8)
    assert (assign(x, centroids) == assign(x.astype(np.float32), centroids)).all()


def test_a_tie_goes_to_the_lower_code():
    centroids = normal(0, 101, 39)
    centroids[100] = centroids[7]
    assert (assign(centroids[[7, 100, 7]], centroids) == 7).all()


def test_the_fit_is_the_same_every_time(blobs, learnt):
    again, _ = fit(blobs[0], codes=8, seed=0)
    assert (again == learnt[0]).all()


def test_the_fit_depends_on_the_seed():
    frames = normal(0, 2000, 4)
    assert (fit(frames, codes=16, seed=0)[0] != fit(frames, codes=16, seed=1)[0]).any()


def test_the_fit_finds_centres_that_lie_far_apart(blobs, learnt):
    gaps = np.linalg.norm(learnt[0][:, None] - blobs[1], axis=2)  # (found, true)
    assert gaps.min(axis=0).max() < 0.1


def test_the_report_says_how_far_the_frames_are_from_their_centroids(blobs, learnt):
    assert learnt[1]["inertia_per_frame"] == pytest.approx(6 * 0.1**2, rel=0.05)  # six dimensions of sigma 0.1


def test_the_report_says_how_far_the_frames_are_from_their_mean(blobs, learnt):
    frames = blobs[0].astype(float)
    assert learnt[1]["variance_per_frame"] == pytest.approx(((frames - frames.mean(axis=0)) ** 2).sum(1).mean())


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match="7 frames cannot make 8 codes"):
        fit(normal(0, 7, 3), codes=8, seed=0)


def test_as_many_frames_as_codes_are_enough():
    assert fit(normal(0, 8, 3), codes=8, seed=0)[1]["codes_used"] == 8


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@quick
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any))
def test_perplexity_lies_between_one_and_the_codes_used(counts):
    found = usage(np.array(counts))
    assert found["codes_used"] == sum(count > 0 for count in counts)
    assert 1 - 1e-9 <= found["perplexity"] <= found["codes_used"] * (1 + 1e-9)


def test_perplexity_is_the_number_of_codes_when_all_are_used_alike():
    assert usage(np.full(500, 3))["perplexity"] == pytest.approx(500)


@pytest.fixture
def codebook(tmp_path) -> str:
    """The address of a codebook of 70 centroids of 39 numbers."""
    from wavmill.pipeline.quantizers.codebooks import save_codebook

    address = str(tmp_path / "km70")
    save_codebook(address, Codebook(normal(0, 70, 39), {"feature": {"kind": "mfcc"}}, {"frames": 1000}))
    return address


def test_a_codebook_comes_back_as_it_was_saved(codebook):
    from wavmill.pipeline.quantizers.codebooks import load_codebook

    again = load_codebook(codebook)
    assert (again.centroids == normal(0, 70, 39)).all()
    assert (again.recipe, again.report) == ({"feature": {"kind": "mfcc"}}, {"frames": 1000})


def test_a_codebook_of_another_hash_is_refused(codebook):
    from wavmill.pipeline.errors import JobError
    from wavmill.pipeline.quantizers.codebooks import load_codebook

    with pytest.raises(JobError, match="planned with 000000000000"):
        load_codebook(codebook, "0" * 64)


def test_a_codebook_with_a_changed_byte_is_refused(codebook):
    from pathlib import Path

    from wavmill.pipeline.errors import JobError
    from wavmill.pipeline.quantizers.codebooks import load_codebook

    tensor = Path(codebook) / "codebook.safetensors"
    data = tensor.read_bytes()
    tensor.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(JobError, match="damaged"):
        load_codebook(codebook)


@pytest.mark.parametrize("shape", [(9, 39), (9, 1, 39), (0, 1, 39)])
def test_the_quantizer_takes_the_frames_of_an_extractor_or_of_a_column(codebook, shape):
    from wavmill.pipeline.quantizers import QUANTIZERS

    frames = normal(5, *shape)
    [codes] = QUANTIZERS["kmeans"](codebook=codebook).open()([frames])
    assert codes.tolist() == assign(frames.reshape(-1, 39), normal(0, 70, 39)).tolist()


def test_the_quantizer_refuses_frames_of_another_width(codebook):
    from wavmill.pipeline.quantizers import QUANTIZERS

    with pytest.raises(ValueError):
        QUANTIZERS["kmeans"](codebook=codebook).open()([normal(5, 39, 40)])


@pytest.mark.parametrize("codes, bits", [("auto", 16), (1 << 16, 16), ((1 << 16) + 1, 32)])
def test_a_token_takes_two_bytes_until_it_needs_four(codes, bits):
    from wavmill.pipeline.quantizers import QUANTIZERS

    assert QUANTIZERS["kmeans"](codebook="anywhere", codes=codes).type.value_type.bit_width == bits


def test_a_codebook_counts_by_its_hash_and_not_by_its_address():
    from wavmill.pipeline.quantizers import QUANTIZERS

    here, there = (QUANTIZERS["kmeans"](codebook=at, sha256="a" * 64) for at in ("here", "there"))
    assert here.recipe() == there.recipe()


@pytest.mark.parametrize("value", [0.0, -11.5])
def test_frames_that_are_all_alike_make_no_codebook(value):
    with pytest.raises(ValueError, match="they are alike, as those of silence are"):
        fit(np.full((300, 4), value, np.float32), 8, 0)
