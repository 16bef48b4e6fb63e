"""The card of a published dataset: the folder opens as people open it, and nothing in it names this machine."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from inline import run_inline

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.job.dataset_job import recipe_of, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.quantizers.codebooks import save_codebook

JOB = """
name: cards
source: {{kind: files, path: "{root}/in"}}
feature: {{kind: mfcc}}
token: {{kind: kmeans, codebook: "{root}/codebook"}}
keep: [feature, token]
store: "{root}/out"
"""


@pytest.fixture(scope="module", params=["with rejects", "without rejects"])
def published(request, tmp_path_factory, tone, wav) -> Path:
    """The folder of a version, of a job with everything whose address might be written down."""
    tmp_path = tmp_path_factory.mktemp("cards")
    (tmp_path / "in" / "who").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "in" / "who" / f"{number}.wav").write_bytes(wav(tone(0.5 + number, seed=number)))
    if request.param == "with rejects":
        (tmp_path / "in" / "bad.wav").write_bytes(b"no sound")
    text = JOB.format(root=tmp_path)
    half = resolve(parse_job(text), how_to_fit=None)
    centroids = np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32)
    save_codebook(half.token.codebook, Codebook(centroids, recipe_of(half), {}))
    job = resolve(parse_job(text))
    dataset = run_inline(job)
    assert bool(dataset.counts.rejected) == (request.param == "with rejects")
    return Path(job.address, "v1")


def test_the_front_matter_says_that_the_parts_and_nothing_else_are_the_split_train(published):
    """As ``datasets`` reads a card: YAML between two lines of dashes, and globs below the folder."""
    opening, front, text = (published / "README.md").read_text().split("---\n", 2)
    assert not opening and text.strip().startswith("# cards, version 1")
    [config] = yaml.safe_load(front)["configs"]
    [files] = config["data_files"]
    assert (config["config_name"], files["split"]) == ("default", "train")
    parts = sorted(path for path in published.rglob("*.parquet") if path.name.startswith("part-"))
    assert parts and sorted(published.glob(files["path"])) == parts
    assert (published / "rejects.parquet").exists()


def test_nothing_in_a_published_folder_names_where_it_was_made(published):
    """The store, the corpus and the codebook lie below one folder, whose name no file holds."""
    root = str(published.parents[2]).encode()
    files = [path for path in published.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path.name for path in files if root in path.read_bytes()]


def test_the_card_s_python_reads_a_folder_that_was_moved(published, tmp_path, monkeypatch):
    moved = shutil.copytree(published, tmp_path / "elsewhere")
    code = (moved / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(moved)
    names: dict = {}
    exec(code, names)
    assert names["table"].num_rows == 3
