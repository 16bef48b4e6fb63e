"""The kind of processor of every stage is recorded with a shard, summed in dataset.json, and a mix of kinds is said."""

import io
import json

import numpy as np
import pytest
import soundfile
from documents import record
from inline import mill, words

from wavmill.model import products
from wavmill.pipeline.execution import processors
from wavmill.pipeline.job.dataset_job import fingerprint
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.publish import publish
from wavmill.pipeline.protocol.records import attempts_done, read_records
from wavmill.pipeline.store import open_store
from wavmill.pipeline.workspace import Workspace


@pytest.fixture
def job(tmp_path):
    """A job of several shards, of mel frames."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        sound = 0.1 * np.random.default_rng(number).normal(size=16_000)
        soundfile.write(folder / f"{number}.wav", sound, 16_000)
    return words(folder, tmp_path / "out")


def records_of(job):
    store, of = open_store(job.store), fingerprint(job)
    return read_records(store, of, sorted(attempts_done(store, of).items()))


def test_a_record_says_on_what_each_stage_ran_and_by_which_products(job):
    mill(job, make_plans(Workspace(job)))
    for done in records_of(job):
        kinds = done.processors
        assert set(kinds) == {"read", "feature", "window"}
        assert kinds["read"] == kinds["window"] == processors.cpu()
        assert kinds["feature"] == f"{processors.cpu()}, products by {products.way_for(401, 80)}"


def test_shards_of_two_kinds_of_processors_are_counted_and_said(job, monkeypatch):
    plans = make_plans(Workspace(job))
    mill(job, plans, most=1)
    dataset_of_one_kind = list(processors.lines(processors.summed(records_of(job))))
    monkeypatch.setattr(processors, "cpu", lambda: "another processor")
    others = mill(job, plans)
    dataset = publish(Workspace(job), plans)
    assert dataset_of_one_kind == [] and others
    assert sorted(dataset.processors["window"].values()) == sorted([1, others])
    [line] = processors.lines(dataset.processors)
    assert line.startswith("read, feature, window: shards were made on 2 kinds of processors")
    assert "another processor: " in line and line in printed(dataset)


def test_a_shard_in_which_nothing_could_be_decoded_is_of_no_other_kind(job, tmp_path):
    (tmp_path / "in" / "broken.wav").write_bytes(b"")
    mill(job, plans := make_plans(Workspace(job)))
    dataset = publish(Workspace(job), plans)
    assert dataset.counts.rejected == 1
    assert list(processors.lines(dataset.processors)) == []


def printed(dataset) -> str:
    from rich.console import Console

    from wavmill.cluster.printing import print_dataset

    sink = io.StringIO()
    print_dataset(Console(file=sink, width=10_000), dataset, "somewhere")
    return sink.getvalue()


def test_records_of_before_kinds_were_noted_count_for_none():
    assert processors.summed([record(done=1), record(done=1, processors={"read": "x"})]) == {"read": {"x": 1}}
    assert list(processors.lines({})) == []


def test_a_kind_is_text_that_json_keeps():
    assert json.loads(json.dumps(processors.cpu())) == processors.cpu() != ""


def test_doctor_says_which_way_the_products_go(monkeypatch):
    from wavmill.cluster.doctor import products as found

    [finding] = found()
    assert finding.good and processors.cpu() in finding.said and products.way_for(401, 80) in finding.said
    monkeypatch.setattr(products, "WAYS", {"integers": products.WAYS["integers"]})
    products.way_for.cache_clear()
    [finding] = found()
    products.way_for.cache_clear()
    assert finding.said.startswith("by integers (numpy gives a frame other bits at other places")
