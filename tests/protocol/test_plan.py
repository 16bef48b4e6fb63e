"""Plans: shards that hold every object once, keys that say what is in them, growth that leaves the old ones alone."""

import json
import os
import struct
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import PrivateAttr
from s3_server import bucket_on

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.job.dataset_job import Job, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.preview import preview
from wavmill.pipeline.protocol import plan as plan_module
from wavmill.pipeline.protocol.plan import (
    cut,
    list_objects,
    make_plans,
    objects_between,
    plans_of,
    put_table,
    read_objects,
    todo_of,
)
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.objects import SCHEMA
from wavmill.pipeline.workspace import Workspace

JOB = """\
name: a
source: {{kind: files, path: "{path}"}}
feature: {{kind: mel}}
store: "{store}"
"""


def job_of(path: Any, store: Any, *sets: str) -> Job:
    return resolve(parse_job(JOB.format(path=path, store=store), sets=sets))


# ---- cutting -----------------------------------------------------------------------------------------------------


class Made(Source):
    """A source whose objects are as long as a test says."""

    kind: Literal["made"] = "made"
    _seconds: list[float] = PrivateAttr(default_factory=list)

    def objects(self, clip: Any, left_out: Any) -> Any:
        raise NotImplementedError

    def read(self, objects: pa.Table, clip: Any, rate_hz: int) -> pa.Table:
        raise NotImplementedError

    def seconds(self, objects: pa.Table) -> np.ndarray:
        return np.array(self._seconds)


def made_job(seconds: list[float], *sets: str) -> Job:
    source = Made()
    source._seconds = seconds
    return job_of("x", "out", *sets).model_copy(update={"source": source})


def made_objects(count: int, stamps: dict[int, str] | None = None) -> pa.Table:
    columns = [[f"{i:05}.wav" for i in range(count)], [1000 + i for i in range(count)]]
    columns += [[(stamps or {}).get(i, "first") for i in range(count)], [0] * count, [-1] * count]
    return pa.table(columns, schema=SCHEMA)


def shards_of(seconds: list[float], *sets: str) -> pa.Table:
    return cut(Workspace(made_job(seconds, *sets)), made_objects(len(seconds)))


lengths = st.lists(
    st.one_of(st.floats(0, 20), st.floats(0, 8000), st.sampled_from([0.0, 1.0, 30.0, 3600.0])), min_size=1, max_size=300
)
sets = st.sampled_from([(), ("clip.max_s=1",), ("feature.bands=256",)])


@settings(deadline=None, max_examples=100)
@given(lengths, sets)
def test_shards_hold_every_row_once_and_in_order(seconds, sets):
    shards = shards_of(seconds, *sets)
    assert [0, *shards["row_hi"].to_pylist()] == [*shards["row_lo"].to_pylist(), len(seconds)]


@settings(deadline=None, max_examples=100)
@given(lengths, sets)
def test_no_shard_is_empty(seconds, sets):
    shards = shards_of(seconds, *sets)
    assert all(lo < hi for lo, hi in zip(shards["row_lo"].to_pylist(), shards["row_hi"].to_pylist(), strict=True))


@settings(deadline=None, max_examples=100)
@given(lengths, sets)
def test_a_shard_of_several_objects_is_within_every_limit(seconds, sets):
    job = made_job(seconds, *sets)
    for shard in cut(Workspace(job), made_objects(len(seconds))).to_pylist():
        inside = seconds[shard["row_lo"] : shard["row_hi"]]
        if len(inside) > 1:
            clips = sum(max(1.0, one / job.clip.max_s) for one in inside)
            assert sum(inside) <= plan_module.SHARD_S * 1.001
            assert sum(inside) * plan_module.bytes_per_s(job) <= plan_module.SHARD_BYTES * 1.001
            assert clips <= plan_module.SHARD_CLIPS * 1.001


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 30), min_size=64, max_size=300))
def test_there_are_at_least_64_shards_where_there_are_as_many_clips(seconds):
    assert shards_of(seconds).num_rows >= plan_module.SHARDS


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.floats(0, 30))
def test_a_few_clips_are_as_many_shards(count, seconds):
    assert shards_of([seconds] * count).num_rows >= min(count, plan_module.SHARDS)


@settings(deadline=None, max_examples=50)
@given(lengths)
def test_a_shard_says_how_many_seconds_it_holds(seconds):
    assert sum(shards_of(seconds)["seconds"].to_pylist()) == pytest.approx(sum(seconds))


@pytest.mark.parametrize(("each_s", "count"), [(10.0, 640), (1.0, 200_000)])
def test_a_shard_is_no_smaller_than_its_limits_make_it(each_s, count):
    shards = shards_of([each_s] * count)
    assert shards.num_rows == max(plan_module.SHARDS, -(-count // 2000))


@settings(deadline=None, max_examples=50)
@given(lengths, st.data())
def test_a_changed_stamp_changes_the_key_of_its_shard_alone(seconds, data):
    row, job = data.draw(st.integers(0, len(seconds) - 1)), made_job(seconds)
    before = cut(Workspace(job), made_objects(len(seconds)))
    after = cut(Workspace(job), made_objects(len(seconds), {row: "second"}))
    same = [old == new for old, new in zip(before["shard"].to_pylist(), after["shard"].to_pylist(), strict=True)]
    holds = [lo <= row < hi for lo, hi in zip(before["row_lo"].to_pylist(), before["row_hi"].to_pylist(), strict=True)]
    assert same == [not here for here in holds]


@pytest.mark.parametrize("column", ["path", "size", "stamp", "lo", "hi"])
def test_everything_about_an_object_is_in_the_key(column):
    objects = made_objects(1)
    other = {**objects.to_pylist()[0], column: "x" if column in ("path", "stamp") else 7}
    assert (
        cut(Workspace(made_job([1.0])), objects)["shard"]
        != cut(Workspace(made_job([1.0])), pa.Table.from_pylist([other], SCHEMA))["shard"]
    )


def test_the_same_objects_have_the_same_keys_however_they_are_stored():
    objects = made_objects(200)
    chunked = pa.concat_tables([objects.slice(0, 7), objects.slice(7, 100), objects.slice(107)])
    assert cut(Workspace(made_job([3.0] * 200)), chunked).equals(cut(Workspace(made_job([3.0] * 200)), objects))


def test_no_two_shards_have_the_same_key():
    keys = shards_of([5.0] * 1000)["shard"].to_pylist()
    assert len(set(keys)) == len(keys)


def test_another_identity_shares_no_key():
    plain, other = (set(shards_of([5.0] * 100, *one)["shard"].to_pylist()) for one in ((), ("feature.bands=40",)))
    assert not plain & other


# ---- plans -------------------------------------------------------------------------------------------------------


@pytest.fixture
def sounds(tmp_path: Path, tone: Any, wav: Any) -> Path:
    """Thirty short sounds in two folders."""
    for number in range(30):
        path = tmp_path / "sounds" / f"d{number % 2}" / f"{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(tone(0.1, seed=number)))
    return tmp_path / "sounds"


@pytest.fixture
def job(sounds: Path, tmp_path: Path) -> Job:
    return job_of(sounds, tmp_path / "store")


def paths_of(job: Job, plan: Any) -> list[str]:
    return read_objects(open_store(job.store), plan)["path"].to_pylist()


def test_a_plan_lists_every_object_in_the_order_of_its_path(job, sounds):
    [plan] = make_plans(Workspace(job))
    assert paths_of(job, plan) == sorted(str(path.relative_to(sounds)) for path in sounds.rglob("*.wav"))


def test_planning_again_gives_the_same_plan(job):
    first = make_plans(Workspace(job))
    assert [plan.head for plan in make_plans(Workspace(job))] == [plan.head for plan in first]


def test_planning_again_writes_nothing(job):
    make_plans(Workspace(job))
    before = {path: path.stat().st_mtime_ns for path in Path(job.store).rglob("*")}
    make_plans(Workspace(job))
    assert {path: path.stat().st_mtime_ns for path in Path(job.store).rglob("*")} == before


def test_the_tables_of_a_plan_are_named_by_their_hash_and_what_they_hold(job):
    [plan] = make_plans(Workspace(job))
    for stored, name in ((plan.head.objects, "objects"), (plan.head.shards, "shards")):
        assert stored.key.rpartition("/")[2] == f"{stored.sha256}.{name}.parquet"
        assert open_store(job.store).stat(stored.key) is not None


def test_a_plan_that_is_loaded_is_the_plan_that_was_made(job):
    [made], [loaded] = make_plans(Workspace(job)), plans_of(Workspace(job))
    assert (made.number, made.head, made.shards) == (loaded.number, loaded.head, loaded.shards)


def test_a_plan_counts_what_was_passed_by(job, sounds):
    (sounds / "notes.txt").write_text("")
    assert make_plans(Workspace(job))[0].head.skipped == {".txt": 1}


def test_ten_new_files_make_a_second_plan_of_these_alone(job, sounds, tone, wav):
    make_plans(Workspace(job))
    new = [f"d0/new{number}.wav" for number in range(10)]
    for number, name in enumerate(new):
        (sounds / name).write_bytes(wav(tone(0.1, seed=100 + number)))
    assert paths_of(job, make_plans(Workspace(job))[1]) == new


def test_new_files_leave_the_first_plan_as_it_was(job, sounds, wav, tone):
    [first] = make_plans(Workspace(job))
    (sounds / "a.wav").write_bytes(wav(tone(0.1)))
    assert make_plans(Workspace(job))[0].head == first.head


def test_a_changed_file_is_planned_again_alone(job, sounds):
    make_plans(Workspace(job))
    os.utime(sounds / "d1" / "07.wav", ns=(0, 1))
    assert [paths_of(job, plan) for plan in make_plans(Workspace(job))[1:]] == [["d1/07.wav"]]


def test_a_removed_file_makes_no_new_plan(job, sounds):
    make_plans(Workspace(job))
    (sounds / "d1" / "07.wav").unlink()
    assert len(make_plans(Workspace(job))) == 1


def test_growth_after_growth_is_numbered(job, sounds, wav, tone):
    for name in ("x.wav", "y.wav"):
        make_plans(Workspace(job))
        (sounds / name).write_bytes(wav(tone(0.1)))
    assert [plan.number for plan in make_plans(Workspace(job))] == [1, 2, 3]


def test_another_text_in_a_manifest_plans_that_clip_again(sounds, tmp_path):
    rows = [f"d0/{number:02}.wav,text {number}" for number in range(0, 30, 2)]
    (tmp_path / "m.csv").write_text("\n".join(["path,text", *rows]))
    said = f"source={{kind: manifest, path: {tmp_path}/m.csv, root: {sounds}, carry: [text]}}"
    job = job_of(sounds, tmp_path / "store", said)
    make_plans(Workspace(job))
    (tmp_path / "m.csv").write_text("\n".join(["path,text", *rows[:-1], "d0/28.wav,another"]))
    assert paths_of(job, make_plans(Workspace(job))[1]) == ["d0/28.wav"]


def test_the_order_of_a_listing_does_not_matter(job, monkeypatch):
    shards = cut(Workspace(job), list_objects(job))
    forward = Folder.list
    monkeypatch.setattr(Folder, "list", lambda *args: reversed(list(forward(*args))))
    assert cut(Workspace(job), list_objects(job)) == shards


def test_the_same_corpus_elsewhere_has_the_same_keys(job, sounds, tmp_path):
    sounds.rename(tmp_path / "moved")
    moved = job_of(tmp_path / "moved", tmp_path / "elsewhere")
    before = cut(Workspace(job_of(tmp_path / "moved", job.store)), list_objects(moved))
    assert cut(Workspace(moved), list_objects(moved)) == before


def raced(*jobs: Job, monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """What as many planners get that have all listed before the first one writes."""
    start, cut_alone = threading.Barrier(len(jobs)), plan_module.cut
    got: list[Any] = [None] * len(jobs)

    def cut_together(*args: Any) -> pa.Table:
        start.wait(30)
        return cut_alone(*args)

    def plan(number: int) -> None:
        got[number] = [plan.head for plan in make_plans(Workspace(jobs[number]))]

    monkeypatch.setattr(plan_module, "cut", cut_together)
    threads = [threading.Thread(target=plan, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_planners_at_the_same_time_end_with_the_same_plan(sounds, any_store, monkeypatch):
    job = job_of(sounds, any_store)
    got = raced(job, job, job, monkeypatch=monkeypatch)
    assert got[0] is not None and got == [got[0]] * 3


def test_planners_that_saw_different_files_end_with_the_same_plan(sounds, tmp_path, monkeypatch):
    (sounds / "late.xyz").write_bytes(b"?")
    jobs = [job_of(sounds, tmp_path / "store", one) for one in ("name=a", "source.suffixes=[any]")]
    assert Workspace(jobs[0]).fingerprint == Workspace(jobs[1]).fingerprint
    first, second = raced(*jobs, monkeypatch=monkeypatch)
    assert first == second


def test_a_bucket_is_not_listed_again_unless_asked(sounds, tmp_path, moto, monkeypatch, wav, tone):
    bucket = bucket_on(moto, monkeypatch)
    store, job = open_store(f"{bucket}/in"), job_of(f"{bucket}/in", tmp_path / "store")
    store.put("a.wav", wav(tone(0.1)))
    make_plans(Workspace(job))
    store.put("b.wav", wav(tone(0.1)))
    assert (len(make_plans(Workspace(job))), len(make_plans(Workspace(job), refresh=True))) == (1, 2)


def test_a_long_sound_is_planned_as_shards_of_an_hour(tmp_path):
    seconds, rate_hz = 9000, 8000
    with (tmp_path / "long.wav").open("wb") as file:  # 72 MB of silence, of which the disk holds 44 bytes
        size = seconds * rate_hz
        header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate_hz, rate_hz, 1, 8)
        file.write(header + struct.pack("<4sI", b"data", size))
        file.truncate(44 + size)
    job = job_of(tmp_path, tmp_path / "store")
    [plan] = make_plans(Workspace(job))
    assert plan.shards["seconds"].to_pylist() == pytest.approx([3600, 3600, 1800], abs=1)


# ---- what a worker reads -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[str, str, pa.Table]:
    """A store, and in it the objects of a plan in row groups of seven."""
    url, objects = str(tmp_path_factory.mktemp("stored")), made_objects(50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "GROUP_ROWS", 7)
        key = put_table(open_store(url), "folder", "objects", objects).key
    return url, key, objects


@settings(deadline=None, max_examples=100)
@given(rows=st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted).filter(lambda rows: rows[0] < rows[1]))
def test_rows_read_from_a_store_are_the_rows_of_the_plan(stored, rows):
    url, key, objects = stored
    lo, hi = rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "GROUP_ROWS", 7)
        assert objects_between(url, key, lo, hi).equals(objects.slice(lo, hi - lo))


def test_a_shard_with_a_record_is_not_to_do(job):
    plans = make_plans(Workspace(job))
    keys = plans[0].shards["shard"].to_pylist()
    assert [row["shard"] for row in todo_of(plans, set(keys[3:]))] == keys[:3]


def test_what_is_to_do_says_where_its_objects_are(job):
    plans = make_plans(Workspace(job))
    [row] = [row for row in todo_of(plans, set()) if row["row_lo"] == 0]
    objects = objects_between(job.store, row["objects"], row["row_lo"], row["row_hi"])
    assert objects["path"].to_pylist() == paths_of(job, plans[0])[: row["row_hi"]]


# ---- previews ----------------------------------------------------------------------------------------------------


def test_a_preview_writes_nothing(job):
    preview(job)
    assert not Path(job.store).exists()


def test_a_preview_counts_the_shards_that_a_run_would_plan(job):
    assert preview(job).shards == make_plans(Workspace(job))[0].shards.num_rows


def test_a_preview_counts_new_files_beside_what_is_planned(job, sounds, wav, tone):
    planned = make_plans(Workspace(job))[0].shards.num_rows
    (sounds / "new.wav").write_bytes(wav(tone(0.1)))
    seen = preview(job)
    assert (seen.objects, seen.shards, seen.version) == (31, planned + 1, 1)


def test_a_preview_estimates_the_seconds_of_the_corpus(job):
    assert preview(job).seconds == pytest.approx(3.0, rel=0.05)


def test_a_plan_file_is_named_by_what_it_is_for(job):
    [plan] = make_plans(Workspace(job))
    [path] = Path(job.store).rglob("0001.json")
    assert json.loads(path.read_text()) == plan.head.as_json()
