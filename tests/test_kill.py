"""kill -9 of everything in the middle of a run, three times; then the same command: what an undisturbed run gives."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from conftest import bucket_on
from inline import WORDS, digest, globbed, rows_of, run_inline, words

WAVMILL = str(Path(sys.executable).parent / "wavmill")
PATIENCE_S = 180.0


def descendants(pid: int) -> list[int]:
    """The process and everything it started, Ray's servers and workers included."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children[int(fields[1])].append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children[one]
    return found


def kill_tree(pid: int) -> int:
    """SIGKILL all of it at once: stopped first, so that nothing is started or finished in between."""
    tree = descendants(pid)
    for sent in (signal.SIGSTOP, signal.SIGKILL):
        for one in tree:
            try:
                os.kill(one, sent)
            except ProcessLookupError:
                pass
    return len(tree)


def records(store: Path) -> int:
    return len(list((store / "_mill" / "done").rglob("*.json")))


def test_a_run_killed_three_times_ends_as_an_undisturbed_one(corpus, tmp_path):
    store, job_file = tmp_path / "store", tmp_path / "words.yaml"
    job_file.write_text(WORDS.format(path=corpus, store=store))
    for wanted in (2, 8, 15):
        run = subprocess.Popen([WAVMILL, "run", str(job_file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + PATIENCE_S
        while records(store) < wanted:
            assert run.poll() is None, run.stderr.read().decode()
            assert time.monotonic() < deadline, f"{records(store)} records after {PATIENCE_S} s"
            time.sleep(0.02)
        assert kill_tree(run.pid) > 3  # the command, Ray's servers, its workers
        run.wait()
        assert wanted <= records(store) < 27
        assert not (store / "words").exists()
    done_before = records(store)
    last = subprocess.run([WAVMILL, "run", str(job_file)], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert f"{27 - done_before} shards in" in last.stdout and f"{done_before} were done before" in last.stdout
    job, undisturbed = words(corpus, store), words(corpus, tmp_path / "undisturbed")
    assert digest(globbed(store / "words" / "v1" / "data")) == digest(rows_of(undisturbed, run_inline(undisturbed)))
    assert run_inline(job)["version"] == 1


def test_the_command_publishes_the_same_rows_on_a_real_s3_server(corpus, tmp_path, swift, monkeypatch):
    """The corpus is on the server too, so reading, planning, commit and publishing all go through it."""
    bucket = bucket_on(swift, monkeypatch)
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    for path in corpus.rglob("*.*"):
        key = f"{prefix}/corpus/{path.relative_to(corpus)}"
        swift.client().put_object(Bucket=name, Key=key, Body=path.read_bytes())
    job_file = tmp_path / "words.yaml"
    job_file.write_text(WORDS.format(path=f"{bucket}/corpus", store=f"{bucket}/store"))
    first = subprocess.run([WAVMILL, "run", str(job_file)], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    again = subprocess.run([WAVMILL, "run", str(job_file)], capture_output=True, text=True)
    assert again.stdout.startswith("done already")
    there, here = words(f"{bucket}/corpus", f"{bucket}/store"), words(corpus, tmp_path / "folder")
    assert digest(rows_of(there, run_inline(there))) == digest(rows_of(here, run_inline(here)))
