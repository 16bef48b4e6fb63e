"""A cluster of two nodes, of which one does not see everything: what is said, and that nothing wrong is published."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_hubert
from training import JOB as TRAINING
from training import put_dataset
from training_runs import digest, final, worked
from two_nodes import ROOT, TwoNodes, namespaces, two_nodes

from wavmill.cluster.load import load_training

pytestmark = pytest.mark.skipif(not namespaces(), reason="no mount namespaces here")

MEL = """
name: words
source: {{kind: files, path: "{corpus}"}}
clip: {{min_s: 0}}
feature: {{kind: mel}}
store: "{store}"
"""
HUBERT = """
name: units
source: {{kind: files, path: "{corpus}"}}
clip: {{min_s: 0}}
feature: {{kind: hubert, layer: 1, model: "{model}"}}
store: "{store}"
"""
TOKENS = """
name: tokens
source: {{kind: files, path: "{corpus}"}}
clip: {{min_s: 0}}
feature: {{kind: mel}}
token: {{kind: kmeans, codebook: "{codebook}"}}
fit: {{codes: 2, frames: 60}}
store: "{store}"
"""
CLIPS = 40
SAMPLED_EVERY = 5  # 8 of 40 objects are looked at before a run


@pytest.fixture(scope="module")
def cluster(swift: Any, tone: Any, wav: Any) -> Iterator[TwoNodes]:
    wrong = {"AWS_SECRET_ACCESS_KEY": "another"}
    with two_nodes(swift.env(), wrong) as nodes:
        for folder in ("shared", "head_only", "partial"):
            (nodes.root / folder / "corpus").mkdir()
            for number in range(CLIPS if folder == "partial" else 4):
                sound = nodes.root / folder / "corpus" / f"{number:02d}.wav"
                sound.write_bytes(wav(tone(0.2, seed=number)))
                if folder == "partial" and number % SAMPLED_EVERY == 0:
                    there = nodes.root / "partial_on_second" / "corpus" / sound.name
                    there.parent.mkdir(exist_ok=True)
                    shutil.copy2(sound, there)
        shutil.copytree(tiny_hubert(), nodes.root / "head_only" / "hubert")
        yield nodes


def job(nodes: TwoNodes, text: str, name: str, **values: Any) -> Path:
    """A job file, with values that begin with a folder's name below the cluster's root."""
    path = nodes.root / f"{name}.yaml"
    path.write_text(
        text.format(**{key: value if "://" in value else nodes.root / value for key, value in values.items()})
    )
    return path


def test_what_one_node_does_not_see_is_named_before_anything_starts(cluster, swift):
    """Each path that a job names, on the head alone; and credentials and permissions that one node has not."""
    swift.client().create_bucket(Bucket="asked")
    jobs = {
        "source.path": (2, job(cluster, MEL, "a", corpus="head_only/corpus", store="shared/a")),
        "store": (2, job(cluster, MEL, "b", corpus="shared/corpus", store="head_only/b")),
        "feature.model": (
            2,
            job(cluster, HUBERT, "c", corpus="shared/corpus", model="head_only/hubert", store="shared/c"),
        ),
        "read_only": (77, job(cluster, MEL, "d", corpus="shared/corpus", store="read_only/d")),
        "on S3 as test...ster (env)": (77, job(cluster, MEL, "e", corpus="shared/corpus", store="s3://asked/e")),
    }
    swift.client().put_object(Bucket="asked", Key="in/a.wav", Body=(cluster.root / "shared/corpus/00.wav").read_bytes())
    jobs["s3://asked/in"] = 77, job(cluster, MEL, "s", corpus="s3://asked/in", store="shared/s")
    tokens = job(cluster, TOKENS, "f", corpus="shared/corpus", codebook="head_only/codebook", store="shared/f")
    asked = [("run", path) for _, path in jobs.values()]
    asked += [
        ("fit", tokens),
        ("run", tokens),
        ("doctor", jobs["source.path"][1]),
        ("doctor", cluster.root / "shared/a"),
    ]
    ran = [cluster.verb(*words) for words in asked]
    expected = [(code, what) for what, (code, _) in jobs.items()] + [(0, ""), (2, "codebook"), (2, "source.path")]
    for (code, said), (wanted, what) in zip(ran, expected, strict=False):
        assert (code, what in said) == (wanted, True), said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) <= 2 + 10 * (code == 0) or "doctor" in said or "ok " in said, said
    seen = [line for line in ran[-2][1].splitlines() if line.split()[1:2] == ["node"]]
    assert [line.split()[0] for line in sorted(seen)] == ["bad", "ok"], "doctor looks at every node"
    assert ran[-1][0] == 0 and ran[-1][1].count("sees what") == 2, ran[-1][1]
    assert not [*cluster.root.rglob("dataset.json")], "something was published"
    left = [
        path for folder in ("shared", "head_only", "read_only") for path in (cluster.root / folder).rglob("_mill/ask/*")
    ]
    assert not left


def test_a_file_that_one_node_lacks_is_that_machines_fault_and_no_reject(cluster):
    path = job(cluster, MEL, "g", corpus="partial/corpus", store="shared/g")
    code, said = cluster.verb("run", path)
    assert code == 75 and "the driver's node sees it as it was listed" in said, said
    assert not [*cluster.root.rglob("dataset.json")]
    for sound in (cluster.root / "partial" / "corpus").iterdir():
        shutil.copy2(sound, cluster.root / "partial_on_second" / "corpus")
    code, said = cluster.verb("run", path)
    dataset = json.loads((cluster.root / "shared/g/words/v1/dataset.json").read_text())
    assert code == 0 and dataset["counts"]["done"] == dataset["counts"]["clips"] == CLIPS, said


def test_a_training_whose_node_is_lost_says_what_it_waits_for_and_goes_on_when_there_is_one(cluster):
    """And its lines go on: the actor between the workers and the driver runs beside the driver."""
    data = put_dataset(cluster.root / "shared" / "data")
    store = cluster.root / "shared" / "h"
    path = cluster.root / "h.yaml"
    text = TRAINING.replace("epochs: 4, validate_every: 5", "steps: 600, validate_every: 20")
    path.write_text(text.replace("workers: 0", "workers: 2, cpus: 1").format(data=data, store=store, layout="prompt"))
    argv = [sys.executable, "-m", "wavmill.cluster.cli", "train", str(path)]
    env = {**cluster.env, "RAY_ADDRESS": cluster.address, "PYTHONUNBUFFERED": "1", "COLUMNS": "1000"}
    training = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []

    def until(text: str) -> None:
        for line in training.stdout:
            lines.append(line)
            if text in line:
                return
        raise AssertionError("".join(lines))

    try:
        until("step 20 ")
        cluster.kill_second()
        until("is lost; 2 workers of 1 CPUs each need room")
        cluster.start_second()
        before = len(lines)
        until("step 600 / 600")
        assert len(lines) > before
        rest = training.communicate(timeout=120)[0]
    finally:
        training.kill()
        if cluster.second is None:
            cluster.start_second()
    assert training.returncode == 0, "".join(lines) + rest
    assert [*(store / "tiny" / "tensorboard").rglob("events.*")]
    trained = digest(final(load_training(str(path), [])))
    assert trained == worked(data, cluster.root / "whole", 2, text=text), "other weights than of an undisturbed one"
