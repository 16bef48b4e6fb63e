"""What an earlier commit left half done goes on, and what it published opens.

fixtures/half_done.tar.xz was made with commit f35c7d3 by the make.py in it: a published dataset and model, a run that
was killed after 4 of 13 shards, and a training that was killed at step 60 of 1,200.
"""

import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from inline import globbed
from places import FIXTURES
from verbs import verb

HALF, TRAINING = "f5acb0abfb84", "f2271cf90457"  # the fingerprints under which their work lies
FIRST_NS = 1_700_000_000_000_000_000


@pytest.fixture
def left(tmp_path: Path, monkeypatch: Any) -> Path:
    """The folder as it was left; modification times are stamps in its plans."""
    with tarfile.open(FIXTURES / "half_done.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    for number, path in enumerate(sorted((tmp_path / "corpus").rglob("*.*"))):
        os.utime(path, ns=(0, FIRST_NS + number))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVMILL_WATCHED", "")
    return tmp_path


def done(*argv: str) -> str:
    answer = verb(list(argv))
    assert answer["code"] == 0, answer["said"]
    return str(answer["said"])


def test_a_published_dataset_and_a_model_open(left):
    assert "12 done + 1 rejected" in done("run", "whole.yaml")
    assert "716 parameters" in done("train", "trained.yaml")
    done("show", "out/whole/v1")
    done("generate", "out/trained/v1", "--label", "high", "-o", "said")
    assert globbed(left / "out/whole/v1/data").num_rows == 12


def test_a_run_goes_on_with_the_shards_that_are_left(left):
    [folder] = (left / "out/_mill/done").glob(f"{HALF}*")
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    said = done("run", "half.yaml")
    assert "9 shards" in said and "4 were done before" in said and "12 done + 1 rejected" in said
    after = {path: path.read_bytes() for path in folder.rglob("*.json")}
    assert len(after) == 13 and before.items() <= after.items()
    done("run", "half.yaml", "--set", "store=anew")
    mine, fresh = (globbed(left / store / "half/v1/data").sort_by("clip") for store in ("out", "anew"))
    computed = ["rms_db", "feature"]  # the shards of before are another machine's: other last bits
    assert mine.drop_columns(computed).equals(fresh.drop_columns(computed))
    for one, other in zip(mine["feature"].to_pylist(), fresh["feature"].to_pylist(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(mine["rms_db"], fresh["rms_db"], atol=1e-5)
    assert pq.read_table(left / "out/half/v1/rejects.parquet")["clip"].to_pylist() == ["low/empty.wav"]


def test_a_training_goes_on_from_its_last_checkpoint(left):
    said = done("train", "train.yaml")
    steps = [int(step.replace(",", "")) for step in re.findall(r"step ([\d,]+) / 1,200", said)]
    assert steps[0] == 80 and steps[-1] == 1200
    model = json.loads((left / "out/model/v1/model.json").read_text())
    assert model["fingerprint"].startswith(TRAINING)
