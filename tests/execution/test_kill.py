"""kill -9 in the middle of a run on Ray, of whoever is there; in the end what an undisturbed run gives."""

import itertools
import os
import random
import shutil
import subprocess
from contextlib import nullcontext

import pytest
from chaos import CHAOS, progress, remember, remembered, summed
from checker import problems, rows_hash
from inline import WORDS, digest, rows_of, run_inline, words
from places import HELPERS
from raykills import WAVMILL, history
from s3_server import bucket_on
from two_nodes import two_nodes

from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job

CHAOS_KILLS = 100
SHARDS = 27
SLOW_JOB = WORDS.replace("{{kind: mel}}", "{{kind: 'slowmel:SlowMel'}}")


@pytest.fixture
def milled(corpus, tmp_path, monkeypatch):
    """Takes runs and who is killed in them, ends with a whole dataset, and returns the kills."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS), prepend=os.pathsep)
    inputs = [str(path.relative_to(corpus)) for path in corpus.rglob("*.*")]
    quiet, job_file, store = tmp_path / "quiet", tmp_path / "slow.yaml", tmp_path / "store"
    run_inline(resolve(parse_job(SLOW_JOB.format(path=corpus, store=quiet))))
    job_file.write_text(SLOW_JOB.format(path=corpus, store=store))
    monkeypatch.setenv("SLOW_S", "0.2")

    def mill(runs, cluster=None):
        shutil.rmtree(store, ignore_errors=True)
        kills = history(job_file, store, runs, cluster)
        assert problems(store, "words", inputs) == []
        assert rows_hash(store, "words") == rows_hash(quiet, "words")
        again = subprocess.run([WAVMILL, "run", str(job_file), "--max-rejects", "1"], capture_output=True, text=True)
        assert again.stdout.startswith("done already")
        return kills

    return mill


def test_a_run_goes_on_after_whatever_was_killed(milled):
    """After its driver, or everything, by the same command; after a task or an extractor of its pool by itself."""
    kills = milled([[("everything", 4)], [("worker", 8), ("extractor", 8)]])  # at work from the start
    assert kills == {"everything": 1, "worker": 1, "extractor": 1}


def test_a_run_goes_on_without_a_node(milled):
    with two_nodes() as cluster:
        assert milled([[("node", 6)]], cluster) == {"node": 1}


def drawn(lots):
    """Runs that are ended, and a last one that is not; in each a few more kills. One in four loses a node instead."""
    wanted = sorted(lots.sample(range(SHARDS - 3), 9))

    def some():
        return [(lots.choice(["worker", "extractor"]), wanted.pop(0)) for _ in range(lots.randrange(1, 3))]

    if lots.random() < 0.25:
        return [[*some(), ("driver", wanted.pop(0))], [("worker", wanted.pop(0)), ("node", wanted.pop(0))]]
    ends = [lots.choice(["driver", "everything"]) for _ in range(2)]
    return [*([*some(), (end, wanted.pop(0))] for end in ends), some()]


@pytest.mark.skipif(not CHAOS, reason="make chaos: it takes half an hour")
def test_runs_go_on_whoever_is_killed_and_how_often(milled, request):
    """Kills that came too late do not count; what was interrupted goes on, until the product changes."""
    done = progress(request.config, "ray-kills")
    seeds = itertools.count()
    while summed(known := remembered(done)).total() < CHAOS_KILLS:
        if (seed := next(seeds)) not in known:
            runs = drawn(random.Random(seed))
            with two_nodes() if "node" in dict(runs[-1]) else nullcontext() as cluster:
                remember(done, seed, milled(runs, cluster))
    print(f"{len(known)} histories: {dict(summed(known))}")
    done.unlink()


def test_the_command_publishes_the_same_rows_on_a_real_s3_server(corpus, tmp_path, swift, monkeypatch):
    """The corpus is on the server too, so reading, planning, commit and publishing all go through it."""
    bucket = bucket_on(swift, monkeypatch)
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    for path in corpus.rglob("*.*"):
        key = f"{prefix}/corpus/{path.relative_to(corpus)}"
        swift.client().put_object(Bucket=name, Key=key, Body=path.read_bytes())
    job_file = tmp_path / "words.yaml"
    job_file.write_text(WORDS.format(path=f"{bucket}/corpus", store=f"{bucket}/store"))
    first = subprocess.run([WAVMILL, "run", str(job_file), "--max-rejects", "1"], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([WAVMILL, "run", str(job_file), "--max-rejects", "1"], capture_output=True, text=True)
    assert again.stdout.startswith("done already")
    there, here = words(f"{bucket}/corpus", f"{bucket}/store"), words(corpus, tmp_path / "folder")
    assert digest(rows_of(there, run_inline(there))) == digest(rows_of(here, run_inline(here)))
