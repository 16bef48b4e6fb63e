"""How a run on a private Ray that somebody else ends does so: what is said, its exit code, what is left running."""

import os
import signal
import subprocess

import pytest
from chaos import CHAOS
from inline import WORDS
from places import HELPERS
from raykills import WAVMILL, at_work, descendants, kill_tree, title, wait_for

SLOW_JOB = WORDS.replace("{{kind: mel}}", "{{kind: 'slowmel:SlowMel'}}")
SERVERS = ("raylet", "gcs_server")


@pytest.fixture
def slow_run(corpus, tmp_path, monkeypatch):
    """The command of a run whose shards take long, and its environment."""
    job_file = tmp_path / "slow.yaml"
    job_file.write_text(SLOW_JOB.format(path=corpus, store=tmp_path / "store"))
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    command = [WAVMILL, "run", str(job_file), "--max-rejects", "1", "--set", "scale.engine=ray"]
    return command, {**os.environ, "PYTHONPATH": path, "SLOW_S": "5"}


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)] if CHAOS else [(signal.SIGTERM, 143)]
)
def test_a_run_that_is_ended_by_a_signal_says_how_to_go_on_and_leaves_nothing_running(slow_run, signum, code):
    """Without a stack of Ray's C++ parts, as Slurm, Kubernetes and a person at a terminal end things."""
    command, env = slow_run
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: at_work(run.pid, "ray::"), run)
        servers = [pid for pid in descendants(run.pid) if any(name in title(pid) for name in SERVERS)]
        assert servers
        os.kill(run.pid, signum)
        out, err = run.communicate(timeout=60)
    finally:
        kill_tree(run.pid)
    assert (run.returncode, err.strip()) == (code, "stopped; the same command goes on from here"), out + err
    assert not [pid for pid in servers if any(name in title(pid) for name in SERVERS)]
