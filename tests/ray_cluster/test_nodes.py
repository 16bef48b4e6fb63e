"""What a node answers when it is asked whether it sees what a job needs; without a cluster (see test_two_nodes.py)."""

import os
import pickle
from functools import partial
from pathlib import Path

import pytest
from inline import words
from training import put_dataset

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.errors import JobError, NotAllowed, Stopped
from wavmill.pipeline.execution import nodes
from wavmill.pipeline.execution.nodes import Answer, Needs, answer, check_nodes, needs_of
from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.protocol.plan import list_objects
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.quantizers.kmeans import KMeans
from wavmill.pipeline.sources.dataset import Dataset
from wavmill.pipeline.store import open_store

PROBE, TEXT = "_mill/ask/0f", b"what the driver wrote"


@pytest.fixture
def asked(corpus, tmp_path):
    """A job over a corpus, what its workers need, and the driver's probe in its store."""
    job = words(corpus, tmp_path / "store")
    objects = list_objects(job).to_pylist()
    open_store(job.store).put(PROBE, TEXT)
    return job, pickle.loads(pickle.dumps(needs_of(job, objects, job.steps))), corpus


def said(needs: Needs) -> list[tuple[type, str]]:
    return [(type(error), str(error)) for error in answer(needs, PROBE, TEXT).problems]


def test_a_node_that_sees_everything_has_no_problem_and_leaves_nothing(asked):
    job, needs, _ = asked
    assert said(needs) == []
    assert [entry.key for entry in open_store(job.store).list("_mill/ask/")] == [PROBE]
    assert answer(needs, PROBE, TEXT).who.startswith("as ")


def test_objects_that_are_not_there_or_others_there_are_counted_and_one_is_named(asked):
    _, needs, corpus = asked
    first, second, *_ = sorted(corpus.rglob("*.flac"))
    first.unlink()
    os.utime(second, ns=(1, 1))
    [(kind, text)] = said(needs)
    assert kind is JobError and f"2 of {len(needs.objects)} objects" in text and first.name in text


def test_a_corpus_that_is_not_there_at_all_is_one_problem(asked):
    _, needs, corpus = asked
    corpus.rename(corpus.with_name("elsewhere"))
    [(kind, text)] = said(needs)
    assert kind is JobError and text.startswith("source.path")


def test_what_the_driver_does_not_see_as_listed_is_not_asked_for(corpus, tmp_path):
    """It changed since the plan: that is for the run to say, and no fault of a node."""
    job = words(corpus, tmp_path / "store")
    objects = list_objects(job).to_pylist()
    first = min(corpus.rglob("*.flac"))
    first.unlink()
    assert len(needs_of(job, objects, job.steps).objects) == len(objects) - 1


def test_a_store_that_is_another_one_there(asked, tmp_path):
    job, needs, _ = asked
    open_store(job.store).put(PROBE, b"another driver's")
    assert [kind for kind, _ in said(needs)] == [JobError]
    open_store(job.store).remove(PROBE)
    assert [kind for kind, _ in said(needs)] == [JobError]


def test_permission_is_not_allowed_and_not_a_wrong_path(asked, monkeypatch):
    _, needs, _ = asked

    def refused(path, *rest, real=os.stat):
        if os.fsencode(path).endswith(b".flac"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    monkeypatch.setattr(os, "stat", refused)
    [(kind, text)] = said(needs)
    assert kind is NotAllowed and "EACCES" in text


def missing_weights(tmp_path: Path) -> HuBERT:
    return HuBERT(model=str(tmp_path / "weights"), layer=1, sha256="0" * 64)


def other_codebook(tmp_path: Path) -> KMeans:
    import numpy as np

    save_codebook(str(tmp_path / "codebook"), Codebook(np.ones((2, 3), np.float32), {}, {}))
    return KMeans(codebook=str(tmp_path / "codebook"), sha256="0" * 64)


def damaged_dataset(tmp_path: Path) -> Dataset:
    return Dataset(**{"from": str(put_dataset(tmp_path / "data")), "column": "token"})  # it names a part of 1 byte


@pytest.mark.parametrize(
    ("choice", "word"), [(missing_weights, "weights"), (other_codebook, "codebook"), (damaged_dataset, "part-00000")]
)
def test_every_choice_that_names_a_place_looks_there(choice, word, tmp_path):
    with pytest.raises(JobError, match=word):
        choice(tmp_path).check_here()


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([JobError("a")], JobError),
        ([NotAllowed("a")], NotAllowed),
        ([Stopped("a")], Stopped),
        ([Stopped("a"), NotAllowed("b")], NotAllowed),
        ([NotAllowed("a"), JobError("b"), Stopped("c")], JobError),
    ],
)
def test_all_problems_of_all_nodes_are_one_message_and_its_code_is_that_of_the_wrong_job(errors, kind, monkeypatch):
    found = [("node one", Answer("as me", "1", [])), ("node two", Answer("as me", "1", errors))]
    monkeypatch.setattr(nodes, "started_here", lambda: False)
    monkeypatch.setattr(nodes, "ask_nodes", lambda needs: found)
    with pytest.raises(kind) as caught:
        check_nodes(Needs())
    assert str(caught.value).count("node two, as me") == len(errors) and "node one" not in str(caught.value)


def test_looks_of_a_training_are_collected(tmp_path):
    looks = [partial(raises, JobError("no model")), partial(raises, NotAllowed("no permission"))]
    assert said(Needs(looks=looks)) == [(JobError, "no model"), (NotAllowed, "no permission")]


def node(name: str, alive: bool = True) -> dict[str, object]:
    return {"NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1", "NodeID": name * 9, "Alive": alive}


def test_nodes_that_were_alive_and_are_not_now_are_lost_unless_the_head_is(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [node("a"), node("b"), node("c", alive=False)])
    before = nodes.alive()
    assert before == {"node a (10.0.0.1, aaaaaaaa)", "node b (10.0.0.1, bbbbbbbb)"}
    assert nodes.lost_since(before) == []
    monkeypatch.setattr(ray, "nodes", lambda: [node("a", alive=False), node("b"), node("c")])
    assert nodes.lost_since(before) == ["node a (10.0.0.1, aaaaaaaa)"]

    def silent():
        raise ray.exceptions.RayError

    monkeypatch.setattr(ray, "nodes", silent)
    assert nodes.alive() == set() and nodes.lost_since(before) == []


def test_the_probe_of_a_store_is_there_while_nodes_are_asked_and_gone_afterwards(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(KeyError), nodes._written(str(tmp_path), PROBE, TEXT):
        assert store.read(PROBE) == TEXT
        raise KeyError
    assert store.stat(PROBE) is None


def test_a_job_without_a_store_writes_no_probe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with nodes._written("", PROBE, TEXT):
        assert not [*tmp_path.iterdir()]
