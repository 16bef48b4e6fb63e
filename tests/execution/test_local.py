"""The local executor: its workers killed, frozen, hung and failing; its driver killed and ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checker import problems, rows_hash
from checkpoints import tiny_hubert
from inline import WORDS, digest, rows_of, run_inline, words
from places import HELPERS
from raykills import WAVMILL, at_work, descendants, kill_tree, records, wait_for

from wavmill.pipeline.errors import JobError, NotAllowed, ObjectFault, Stopped
from wavmill.pipeline.execution import resources as scale
from wavmill.pipeline.execution import watchdog
from wavmill.pipeline.execution.local_executor import LocalExecutor, WorkerError
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.run import run
from wavmill.pipeline.workspace import Workspace

HERE = HELPERS
WORKER = f"{sys.executable}\0-P\0-m\0wavmill.pipeline.execution.local_worker"
GONE_S = 3.0  # for the processes of a killed driver to end
SLOW_JOB = WORDS.replace("{{kind: mel}}", "{{kind: 'slowmel:SlowMel'}}")


def two_workers(*_):
    return LocalExecutor(2)


def parts_of(store, name="words"):
    """The bytes of all that readers of a dataset read."""
    return {path.name: path.read_bytes() for path in (Path(store) / name / "v1").rglob("*.parquet")}


@pytest.fixture
def right(corpus, tmp_path):
    """The digest of the rows of a run without faults."""
    bare = words(corpus, tmp_path / "bare", "clip.max_s=30")
    return digest(rows_of(bare, run_inline(bare)))


@pytest.fixture
def faulty(corpus, tmp_path):
    """A job in which something happens to whoever meets the clip of 5 s, so many times."""

    def job(happens, times, *sets):
        (tmp_path / "times").write_text("\n".join(map(str, range(times))))
        kind = "feature.kind=faultymel:FaultyMel", f"feature.happens={happens}", f"feature.times={tmp_path}/times"
        return words(corpus, tmp_path / "store", "clip.max_s=30", *kind, *sets)

    return job


# ---- the rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["mfcc", "hubert", "a column of a dataset"])
def test_workers_publish_to_the_byte_what_one_process_does(corpus, tmp_path, feature):
    sets = {
        "mfcc": ["feature={kind: mfcc}"],
        "hubert": ["clip.max_s=30", "feature={kind: hubert, model: " + tiny_hubert() + ", layer: 2}"],
        "a column of a dataset": [f"source={{kind: dataset, from: {tmp_path}/first/words, column: feature}}",
                                  "feature=null", "clip={}", "keep=[window]"],
    }[feature]  # fmt: skip
    if feature == "a column of a dataset":
        run_inline(words(corpus, tmp_path / "first", "keep=[feature]"))
    one, two = (words(corpus, tmp_path / name, *sets) for name in ("one", "two"))
    seen = []
    dataset = run(Workspace(two), make_plans(Workspace(two)), two_workers, seen.append)
    run_inline(one)
    assert parts_of(tmp_path / "two") == parts_of(tmp_path / "one")
    assert sum(row["found"] for row in seen) == dataset.counts.clips


def test_more_workers_than_shards_do_no_harm(few, tmp_path):
    job = words(few, tmp_path / "store")
    assert run(Workspace(job), make_plans(Workspace(job)), lambda *_: LocalExecutor(8)).counts.clips == 3


# ---- faults of workers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("happens", "times"), [("killed", 3), ("exit", 1), ("hang", 1), ("frozen", 1)])
def test_the_shard_of_a_worker_that_ends_or_hangs_is_given_to_another(faulty, right, monkeypatch, happens, times):
    """And meanwhile, as no shard finishes, the run says who is at what."""
    monkeypatch.setattr(watchdog, "SAY_S", 1.0)
    job, seen = faulty(happens, times, "scale.patience_s=5"), []
    dataset = run(Workspace(job), plans := make_plans(Workspace(job)), two_workers, seen.append)
    assert digest(rows_of(job, dataset)) == right
    waiting = [row.pop("waiting") for row in seen if "waiting" in row]
    assert sum("shard" in row for row in seen) == plans[0].shards.num_rows
    assert Path(job.feature.times).read_text() == ""
    if happens in ("hang", "frozen"):
        assert any("in feature for" in text and "process" in text for text in waiting), waiting


@pytest.mark.parametrize(
    ("happens", "how"),
    [
        ("killed", r"by SIGKILL \(is there too little memory\?\)"),
        ("segfault", "by SIGSEGV"),
        ("hang", "by its watchdog: nothing moved for 4 s in feature of shard"),
    ],
)
def test_a_shard_that_one_worker_after_another_ends_at_stops_the_run_by_name(faulty, right, monkeypatch, happens, how):
    monkeypatch.setattr(scale, "RETRIES", 1)
    job = faulty(happens, 2, "scale.patience_s=4")
    plans = make_plans(Workspace(job))
    with pytest.raises(Stopped, match=rf"2 workers ended.* at shard \w{{12}} \(word1/take07.flac\), the last {how}"):
        run(Workspace(job), plans, two_workers)
    assert digest(rows_of(job, run(Workspace(job), plans, two_workers))) == right


@pytest.mark.parametrize(
    ("happens", "kind"), [("stopped", Stopped), ("not allowed", NotAllowed), ("job", JobError), ("object", ObjectFault)]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_expected_error_arrives_as_itself(faulty, happens, kind, workers):
    job = faulty(happens, 1)
    with pytest.raises(kind) as raised:
        run(Workspace(job), make_plans(Workspace(job)), lambda *_: LocalExecutor(workers))
    assert type(raised.value) is kind and str(raised.value) == "the very reason"


@pytest.mark.parametrize("happens", ["bug", "memory", "unpicklable"])
def test_an_error_that_nobody_expected_arrives_with_the_trace_of_the_worker(faulty, happens):
    job = faulty(happens, 1)
    with pytest.raises(WorkerError) as raised:
        run(Workspace(job), make_plans(Workspace(job)), two_workers)
    assert "faultymel.py" in str(raised.value) and str(raised.value).strip().endswith("the very reason")


def test_a_run_that_its_reader_ends_leaves_no_worker(corpus, tmp_path):
    def stop(row):
        raise Stopped("enough")

    job = words(corpus, tmp_path / "store")
    with pytest.raises(Stopped, match="enough"):
        run(Workspace(job), make_plans(Workspace(job)), two_workers, stop)
    assert not at_work(os.getpid(), WORKER)


# ---- the end of the driver ---------------------------------------------------------------------------------------


@pytest.fixture
def slow_run(corpus, tmp_path, monkeypatch):
    """The command of a run by two workers whose shards take long, and its environment."""
    job_file = tmp_path / "slow.yaml"
    job_file.write_text(SLOW_JOB.format(path=corpus, store=tmp_path / "store"))
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [WAVMILL, "run", str(job_file), "--max-rejects", "1", "--set", "scale.feature.workers=2"]
    return command, {**os.environ, "PYTHONPATH": path, "SLOW_S": "0.2"}


def gone(pids):
    deadline = time.monotonic() + GONE_S
    while left := [pid for pid in pids if (Path("/proc") / str(pid) / "status").exists() and not zombie(pid)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def zombie(pid):
    try:
        return "State:\tZ" in (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return True


def started(command, env, store, wanted=2):
    """The run, once it has so many records, and the processes that it started."""
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: records(store) >= wanted and len(at_work(run.pid, WORKER)) == 2, run), run.communicate()
    return run, [pid for pid in descendants(run.pid) if pid != run.pid]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_the_workers_of_a_killed_driver_end_and_the_same_command_goes_on(slow_run, corpus, tmp_path):
    command, env = slow_run
    run, others = started(command, env, tmp_path / "store")
    assert len(others) >= 4  # two workers, and what decodes for each
    for pid in at_work(run.pid, WORKER):  # neither of these libraries is loaded
        assert not [name for name in ("_raylet", "libtorch") if name in Path(f"/proc/{pid}/maps").read_text()]
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert gone(others) == []
    done = records(tmp_path / "store")
    again = subprocess.run(command, env={**env, "SLOW_S": "0"}, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{done} were done before" in again.stdout
    assert problems(tmp_path / "store", "words", [str(path.relative_to(corpus)) for path in corpus.rglob("*.*")]) == []
    bare = tmp_path / "bare.yaml"
    bare.write_text(SLOW_JOB.format(path=corpus, store=tmp_path / "bare"))
    command[2] = str(bare)
    subprocess.run(command, env={**env, "SLOW_S": "0"}, check=True, capture_output=True)
    assert rows_hash(tmp_path / "store", "words") == rows_hash(tmp_path / "bare", "words")


def test_a_worker_that_finds_its_driver_gone_ends(tmp_path):
    """Where a process cannot be killed with its parent, as on macOS; on Linux it is killed before it finds out."""
    script = (
        "import socket; from multiprocessing.connection import Connection\n"
        "from wavmill.pipeline.execution.local_worker import Driver\n"
        "mine, other = socket.socketpair(); other.close()\n"
        "Driver(Connection(mine.detach())).keep_telling()"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=HERE.parent, timeout=60).returncode == 1


@pytest.mark.parametrize("killed", ["a worker", "what decodes for it"])
def test_a_run_goes_on_by_itself_after_a_kill_from_outside(slow_run, tmp_path, killed):
    command, env = slow_run
    run, _ = started(command, env, tmp_path / "store")
    victim = at_work(run.pid, WORKER)[0] if killed == "a worker" else descendants(at_work(run.pid, WORKER)[0])[-1]
    os.kill(victim, signal.SIGKILL)
    _, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, ""), err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("to", ["the driver", "all"])
def test_a_run_that_is_ended_by_a_signal_says_how_to_go_on_and_leaves_nothing_running(
    slow_run, tmp_path, signum, code, to
):
    """As Slurm, Kubernetes and ``kill`` do it; a terminal sends Ctrl-C to all processes of the group."""
    command, env = slow_run
    run, others = started(command, env, tmp_path / "store")
    try:
        for pid in [run.pid, *(others if to == "all" else [])]:
            os.kill(pid, signum)
        out, err = run.communicate(timeout=60)
    finally:
        kill_tree(run.pid)
    assert (run.returncode, err.strip()) == (code, "stopped; the same command goes on from here"), out + err
    assert gone(others) == []


def test_a_driver_that_works_alone_and_hangs_ends_itself_as_resumable(faulty, tmp_path):
    job = faulty("hang", 1)
    job_file = tmp_path / "job.yaml"
    job_file.write_text(WORDS.format(path=job.source.path, store=job.store))
    kind = f"feature={{kind: 'faultymel:FaultyMel', happens: hang, times: {job.feature.times}}}"
    command = [WAVMILL, "run", str(job_file), "--max-rejects", "1"]
    for one in ("clip.max_s=30", kind, "scale.patience_s=5"):
        command += ["--set", one]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert ended.returncode == 75, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert "nothing moved for 5 s in feature of shard" in last and last.endswith("run the same command again to go on")
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True).returncode == 0


def test_a_local_run_imports_neither_ray_nor_torch(few, tmp_path):
    (tmp_path / "job.yaml").write_text(f"name: a\nsource: {{kind: files, path: {few}}}\nfeature: {{kind: mfcc}}\n"
                                       f"store: {tmp_path}/store\n")  # fmt: skip
    script = (
        "import sys; from wavmill.cluster import cli\n"
        f"sys.argv = ['wavmill', 'run', '{tmp_path}/job.yaml', '--max-rejects', '1']\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(sorted({'ray', 'torch', 'transformers', 'librosa', 'sklearn', 'boto3'} & {*sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout.strip().splitlines()[-1] == "[]", ended.stderr
    [record] = [json.loads(path.read_bytes()) for path in sorted(tmp_path.rglob("done/**/*.json"))][:1]
    assert record["versions"]["ray"]
