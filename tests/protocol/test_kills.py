"""Drivers killed, frozen, or two at once, without Ray: what is published is whole, as that of an undisturbed run."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from chaos import CHAOS, progress
from checker import problems
from inline import run_inline, words
from places import HELPERS

from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.publish import published
from wavmill.pipeline.workspace import Workspace

HERE = HELPERS
KILLS, CHAOS_KILLS = 30, 900
FOUND_OUT = 3  # as kills.py says it
PATIENCE_S = 300


@pytest.fixture(scope="module")
def few(tmp_path_factory, tone, wav):
    """Six sounds, one of them cut in three, and two that are none."""
    root = tmp_path_factory.mktemp("few")
    for number in range(6):
        folder = root / f"word{number % 2}"
        folder.mkdir(exist_ok=True)
        samples = tone(5.0 if number == 3 else 0.3 + 0.1 * number, seed=number)
        (folder / f"take{number}.flac").write_bytes(wav(samples, format="FLAC"))
    (root / "word0" / "empty.wav").write_bytes(b"")
    (root / "word1" / "text.wav").write_text("not a sound")
    return root


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    """A store with the dataset of an undisturbed run."""
    store = tmp_path_factory.mktemp("whole")
    run_inline(words(few, store))
    return store


def started(script, *given, **options):
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])  # this wavmill, if there are others
    command, environment = [sys.executable, str(HERE / script), *map(str, given)], {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, text=True, **options)


def killed(*given):
    """kills.py: how it ended, what it printed, and what it complained of."""
    run = started("kills.py", *given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complaint = run.communicate()
    return run.returncode, said, complaint


def inputs_of(corpus):
    return [str(path.relative_to(corpus)) for path in corpus.rglob("*.*")]


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.*")}


def test_no_kill_of_a_driver_loses_doubles_or_tears_a_clip(few, tmp_path, request):
    """A few kills; ``make chaos`` has many, and goes on where it was interrupted, until the product changes."""
    wanted, done = (CHAOS_KILLS, progress(request.config, "kills")) if CHAOS else (KILLS, tmp_path / "progress")
    code, said, complaint = killed(few, tmp_path / "stores", wanted, done)
    assert code == 0, complaint
    kills = json.loads(said)
    assert min(kills[kind] for kind in ("before a call", "after a call", "at a moment")) > wanted / 10
    assert kills["rounds of two drivers"] > kills["rounds"] / 6
    print(kills)
    done.unlink()


@pytest.mark.parametrize("mistake", ["record before data", "written in place"])
def test_a_store_that_is_written_wrongly_is_found_out_by_the_same_kills(mistake, few, tmp_path):
    code, said, _ = killed(few, tmp_path / "stores", CHAOS_KILLS, tmp_path / "progress", mistake)
    assert code == FOUND_OUT and said == ""


def test_drivers_that_were_frozen_wake_up_after_the_end_and_change_nothing(few, tmp_path):
    """One before the data of a shard, one between it and the record, and one before each thing that is published."""
    frozen = []
    for before in ("_mill/out/", "_mill/done/", "_mill/choice/", "v1/data/", "v1/dataset.json"):
        frozen.append(started("driver.py", few, tmp_path, before))
        stopped = os.waitid(os.P_PID, frozen[-1].pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped and stopped.si_code == os.CLD_STOPPED
    dataset = run_inline(job := words(few, tmp_path))
    ended, records = content(tmp_path / "words"), content(tmp_path / "_mill" / "done")
    for one in frozen:
        one.send_signal(signal.SIGCONT)
    assert [one.wait(PATIENCE_S) for one in frozen] == [0] * 5
    assert content(tmp_path / "words") == ended
    later = content(tmp_path / "_mill" / "done")
    assert later.items() > records.items() and len(later) >= len(records) + 2  # of the first two, and others of theirs
    assert published(Workspace(job), make_plans(Workspace(job))) == dataset
    assert problems(tmp_path, "words", inputs_of(few)) == []


def test_two_drivers_at_once_make_one_dataset(few, tmp_path, whole):
    both = [started("driver.py", few, tmp_path) for _ in range(2)]
    assert [one.wait(PATIENCE_S) for one in both] == [0, 0]
    assert problems(tmp_path, "words", inputs_of(few)) == []


# ---- the checker --------------------------------------------------------------------------------------------------


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def parquet_of(store, pattern):
    [path] = store.glob(pattern)
    return path, pq.read_table(path)


def a_row_is_gone(store):
    path, rows = parquet_of(store, "words/v1/data/*")
    pq.write_table(rows.slice(1), path)


def a_row_is_double(store):
    path, rows = parquet_of(store, "words/v1/data/*")
    pq.write_table(rows.take([0, *range(len(rows))]), path)


def a_part_of_a_sound_is_gone(store):
    path, rows = parquet_of(store, "words/v1/data/*")
    at = rows["clip"].to_pylist().index("word1/take3.flac#2000")
    pq.write_table(rows.take([i for i in range(len(rows)) if i != at]), path)


def a_reject_is_gone(store):
    path, rows = parquet_of(store, "words/v1/rejects.parquet")
    pq.write_table(rows.slice(1), path)


def a_part_is_left_over(store):
    path, rows = parquet_of(store, "words/v1/data/*")
    pq.write_table(rows, path.with_name("part-00001-of-00002.parquet"))


def a_bit_of_data_is_flipped(store):
    path = min((store / "_mill" / "out").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def data_is_gone(store):
    min((store / "_mill" / "out").rglob("*.parquet")).unlink()


def a_record_is_gone(store):
    min((store / "_mill" / "done").rglob("*.json")).unlink()


def a_record_is_changed(store):
    edit(min((store / "_mill" / "done").rglob("*.json")), '"found": ', '"found": 1')


def a_second_choice_is_there(store):
    shutil.copy(store / "_mill/choice/words/v1.json", store / "_mill/choice/words/v2.json")


def the_sums_are_others(store):
    edit(store / "words" / "v1" / "dataset.json", '"objects": 8', '"objects": 9')


WRONG = {
    a_row_is_gone: "neither done nor rejected",
    a_row_is_double: "is there 2 times",
    a_part_of_a_sound_is_gone: "has a gap before 4.0 s",
    a_reject_is_gone: "neither done nor rejected",
    a_part_is_left_over: "finds others",
    a_bit_of_data_is_flipped: "than it names",
    data_is_gone: "a record without its",
    a_record_is_gone: "has no record",
    a_record_is_changed: "is not what was sealed",
    a_second_choice_is_there: "there are 2 choices",
    the_sums_are_others: "counts other objects",
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_the_checker_finds_it_when(spoil, few, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    assert problems(tmp_path / "store", "words", inputs_of(few)) == []
    spoil(tmp_path / "store")
    assert WRONG[spoil] in "\n".join(problems(tmp_path / "store", "words", inputs_of(few)))


def test_the_checker_knows_nothing_of_wavmill():
    tree = ast.walk(ast.parse((HERE / "checker.py").read_text()))
    names = [str(node.module) for node in tree if isinstance(node, ast.ImportFrom)]
    assert not {name.partition(".")[0] for name in names} & {"cluster", "inline", "model", "pipeline"}
