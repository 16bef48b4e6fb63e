"""verify: what was published is made again, and whoever changed it is found out."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoints import tiny_hubert
from hypothesis import given
from hypothesis import strategies as st
from inline import run_inline, words
from typer.testing import CliRunner

from wavmill.cluster.cli import app
from wavmill.model.quantization.agreement import (
    collapsed,
    compare_tokens,
    edit_distance,
    near_ties,
    perplexity,
    relative,
)
from wavmill.model.quantization.codebook import Codebook
from wavmill.model.quantization.kmeans import assign
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.dataset_job import recipe_of, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import plans_of
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.verify import golden, sample, verify
from wavmill.pipeline.workspace import Workspace

CODES = st.lists(st.integers(0, 3), max_size=12).map(lambda codes: np.array(codes, np.int64))
JOB = """
name: units
source: {{kind: files, path: "{corpus}"}}
clip: {{max_s: 30}}
feature: {{kind: hubert, model: "{model}", layer: 2, dtype: {dtype}}}
token: {{kind: kmeans, codebook: "{root}/codebook"}}
keep: [feature, token]
store: "{root}/store"
"""


# ---- the figures --------------------------------------------------------------------------------------------------


def slow_edit_distance(a, b):
    if not len(a) or not len(b):
        return len(a) + len(b)
    rest = slow_edit_distance
    return min(rest(a[1:], b) + 1, rest(a, b[1:]) + 1, rest(a[1:], b[1:]) + (a[0] != b[0]))


@given(CODES.filter(lambda codes: len(codes) < 6), CODES.filter(lambda codes: len(codes) < 6))
def test_the_edit_distance_is_the_fewest_changes(found, right):
    assert edit_distance(found, right) == slow_edit_distance(list(found), list(right))


@given(CODES)
def test_collapsed_codes_are_the_codes_without_those_like_the_one_before(codes):
    assert collapsed(codes).tolist() == [code for code, _ in groupby(codes.tolist())]


@given(st.lists(CODES, max_size=4), st.data())
def test_flips_are_the_frames_that_differ(right, data):
    found = [np.array([data.draw(st.integers(0, 3)) for _ in codes], np.int64) for codes in right]
    said = compare_tokens(found, right)
    assert said.flips == sum(
        a != b for one, other in zip(found, right, strict=True) for a, b in zip(one, other, strict=True)
    )
    assert said.frames == sum(map(len, right)) and said.units == sum(len(collapsed(codes)) for codes in right)
    assert (said.edits == 0) or said.flips > 0


@given(st.integers(2, 3), st.lists(st.integers(0, 2), max_size=24), st.integers(0, 2**32 - 1))
def test_a_frame_of_several_codebooks_is_one_that_agrees_or_does_not(codebooks, codes, seed):
    right = np.array(codes[: len(codes) // codebooks * codebooks], np.int64).reshape(-1, codebooks)
    changes = np.random.default_rng(seed).random(right.shape) < 0.2
    said = compare_tokens([right + changes], [right])
    assert (said.frames, said.flips) == (len(right), int(changes.any(axis=1).sum()))
    assert compare_tokens([right[:, 0]], [right[:, 0]]).frames == len(right)
    if len(right):
        each = [perplexity(right[:, column]) for column in range(codebooks)]
        assert said.perplexity == pytest.approx(np.mean(each))


def test_the_perplexity_of_equally_frequent_codes_is_their_number():
    assert perplexity(np.arange(7).repeat(5)) == pytest.approx(7)
    assert perplexity(np.zeros(9, int)) == pytest.approx(1)


def test_features_that_are_the_same_are_not_apart_and_others_are():
    right = np.arange(6.0).reshape(2, 3)
    assert relative(right, right) == 0 == relative(0 * right, 0 * right)
    assert relative(1.01 * right, right) == pytest.approx(0.01)


@given(st.integers(0, 1000))
def test_a_frame_that_is_no_near_tie_keeps_its_code_whatever_the_error(seed):
    lots = np.random.default_rng(seed)
    frames, centroids = lots.normal(size=(50, 4)), lots.normal(size=(20, 4)).astype(np.float32)
    moved = frames + (step := 0.2 * lots.normal(size=frames.shape))
    flipped = assign(frames.astype("f4"), centroids) != assign(moved.astype("f4"), centroids)
    share = near_ties(frames, np.linalg.norm(step, axis=1), centroids)
    assert flipped.mean() <= share <= 1
    assert near_ties(frames, np.zeros(50), centroids) == 0


# ---- a dataset ----------------------------------------------------------------------------------------------------


@pytest.fixture
def published(corpus, tmp_path):
    """Makes a dataset of HuBERT features and tokens; gives its job, plans and dataset.json, and the job file."""

    def made(dtype="float32"):
        text = JOB.format(corpus=corpus, model=tiny_hubert(), root=tmp_path, dtype=dtype)
        (tmp_path / "units.yaml").write_text(text)
        half = resolve(parse_job(text), how_to_fit=None)
        centroids = np.random.default_rng(0).normal(size=(20, 48)).astype(np.float32)
        save_codebook(half.token.codebook, Codebook(centroids, recipe_of(half), {}))
        job = resolve(parse_job(text))
        dataset = run_inline(job)
        return job, plans_of(Workspace(job)), dataset

    made.root = tmp_path
    return made


def run(*words_):
    result = CliRunner().invoke(app, [str(word) for word in words_])
    return result.exit_code, result.output


def test_a_dataset_agrees_with_itself_made_again(published):
    job, plans, dataset = published()
    found = verify(job, plans, dataset, clips=5)
    assert found.clips == 5 and not found.problems
    assert max(found.relative.values()) < 1e-6
    assert [said.flips for said in found.tokens.values()] == [0, 0]
    code, said = run("verify", published.root / "units.yaml", "--clips", 4)
    assert code == 0 and "agrees" in said and "0 per million" in said


def test_half_precision_is_stated_and_judged_by_its_own_limit(published):
    found = verify(*published("bfloat16"), clips=5)
    assert found.dtype == "bfloat16" and 1e-4 < max(found.relative.values()) < 0.1
    assert found.near_ties > 0


def test_a_sample_is_the_seeds_and_draws_no_clip_twice(published):
    job, _, dataset = published()
    drawn = [sample(job, dataset, 4, seed)["clip"].to_pylist() for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({tuple(clips) for clips in drawn}) > 2
    assert all(len({*clips}) == 4 for clips in drawn)
    assert sample(job, dataset, 10_000, 0).num_rows == dataset.counts.done


@pytest.mark.parametrize("column", ["feature", "token"])
def test_whoever_changed_what_was_published_is_found_out(published, column):
    job, _, dataset = published()
    path = Path(f"{job.address}/v1/{dataset.parts[0].path}")
    table = pq.read_table(path)
    flat = table[column].combine_chunks()
    values = flat.values.values if column == "feature" else flat.values
    spoilt = pa.array((values.to_numpy() + 1).astype(values.to_numpy().dtype))
    inner = pa.FixedSizeListArray.from_arrays(spoilt, 48) if column == "feature" else spoilt
    again = pa.ListArray.from_arrays(flat.offsets, inner)
    pq.write_table(table.set_column(table.schema.get_field_index(column), table.schema.field(column), again), path)
    code, said = run("verify", published.root / "units.yaml")
    assert code == 1 and f"{column}s, published against clip by clip in float32" in said
    code, said = run("verify", published.root / "units.yaml", "--bytes")
    assert code == 1 and "has other bytes" in " ".join(said.split()) and "1 of 2 files have their bytes" in said
    code, said = run("verify", job.address, "--bytes")
    assert code == 1


def test_bytes_of_what_nobody_touched_are_all_there(published):
    job, _, _ = published()
    assert run("verify", job.address, "--bytes") == (0, "2 of 2 files have their bytes\n")
    Path(f"{job.address}/v1/rejects.parquet").unlink()
    assert run("verify", job.address, "--bytes")[0] == 1


def test_golden_sounds_are_what_somebody_else_says(published, tone, wav):
    """Features and codes as transformers and numpy give them."""
    import torch
    from checkpoints import net_of

    job, _, _ = published()
    folder = published.root / "golden"
    folder.mkdir()
    centroids = np.random.default_rng(0).normal(size=(20, 48)).astype(np.float32)
    for number in range(3):
        sound = tone(0.5 + number, seed=number)
        (folder / f"{number}.wav").write_bytes(wav(sound, subtype="FLOAT"))
        with torch.inference_mode():
            states = net_of("Base")(torch.tensor(sound)[None], output_hidden_states=True).hidden_states[2][0].numpy()
        np.save(folder / f"{number}.npy", states)
        apart = ((states[:, None] - centroids) ** 2).sum(2)
        (folder / f"{number}.km").write_text(" ".join(map(str, apart.argmin(1))) + "\n")
    found = golden(job, folder)
    assert found.clips == 3 and not found.problems
    assert found.tokens["golden against clip by clip in float32"].flips <= 1
    np.save(folder / "0.npy", np.load(folder / "0.npy") + 1)
    code, said = run("verify", published.root / "units.yaml", "--golden", folder)
    assert code == 1 and "golden" in said
    (folder / "1.km").unlink()
    with pytest.raises(JobError, match=r"1\.wav has none"):
        golden(job, folder)
    with pytest.raises(JobError, match="it has no token"):
        (folder / "1.km").write_text("1\n")
        golden(job.model_copy(update={"token": None}), folder)


def test_what_cannot_be_verified_says_what_would_be_right(published, tmp_path, corpus):
    job, plans, dataset = published()
    with pytest.raises(JobError, match=r"no sound with NAME\.npy"):
        golden(job, tmp_path)
    assert run("verify", job.address)[0] != 0
    (tmp_path / "new.yaml").write_text(
        "name: other" + (published.root / "units.yaml").read_text().partition("units")[2]
    )
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "new.yaml")])
    assert "is not published yet: wavmill run" in str(result.exception)
    for path in corpus.rglob("*.*"):
        path.unlink()
    with pytest.raises(JobError, match="can no longer be decoded"):
        verify(job, plans, dataset, clips=1000)


def test_a_job_without_features_has_nothing_to_make_again(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    dataset = run_inline(job)
    assert verify(job, plans_of(Workspace(job)), dataset, clips=3).relative
