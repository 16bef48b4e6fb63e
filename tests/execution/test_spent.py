"""Where the time went: measured stage by stage, carried to the record, summed over the records."""

import json
import time
from pathlib import Path

import documents
import pyarrow as pa
import pytest
from inline import mill, run_inline, words

from wavmill.pipeline.execution.apply import Apply
from wavmill.pipeline.execution.read import Read
from wavmill.pipeline.protocol.commit import Commit
from wavmill.pipeline.protocol.plan import make_plans, todo_of
from wavmill.pipeline.protocol.records import Record
from wavmill.pipeline.protocol.timing import BINS, PAUSE_S, add_seconds, seconds_by_stage, start_seconds, time_of
from wavmill.pipeline.rows import CONTEXT
from wavmill.pipeline.workspace import Workspace


def records_in(store) -> list[dict]:
    return [json.loads(path.read_bytes()) for path in sorted(Path(store, "_mill", "done").rglob("*.json"))]


def test_a_record_has_the_seconds_of_every_stage_that_ran(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    plans, start = make_plans(Workspace(job)), time.perf_counter()
    mill(job, plans)
    took_s = time.perf_counter() - start
    records = records_in(tmp_path / "store")
    assert all({*record["spent_s"]} == {"read", "feature", "window", "commit"} for record in records)
    total_s = sum(sum(record["spent_s"].values()) for record in records)
    assert took_s / 2 < total_s < took_s


def test_a_slow_stage_is_the_one_that_took_long(corpus, tmp_path, monkeypatch):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    shard = pa.Table.from_pylist([next(todo_of(plans, set()))])
    monkeypatch.setattr("wavmill.pipeline.execution.apply.open_step", lambda choice: time.sleep(0.5) or choice.open())
    Commit(Workspace(job))(Apply([job.window])(Apply([job.feature], ["audio", *CONTEXT])(Read(job)(shard))))
    [record] = records_in(tmp_path / "store")
    assert min(record["spent_s"]["feature"], record["spent_s"]["window"]) >= 0.5
    assert max(record["spent_s"]["read"], record["spent_s"]["commit"]) < 0.5


def test_the_seconds_are_no_column_of_the_dataset(corpus, tmp_path):
    dataset = run_inline(words(corpus, tmp_path / "store"))
    assert "spent_s" not in dataset.columns
    assert [*dataset.time.spent_s] == ["read", "feature", "window", "commit"]
    assert dataset.time.wall_s > 0
    assert sum(dataset.time.finished_s) == pytest.approx(dataset.seconds, abs=0.1)


def test_a_table_that_was_not_read_from_a_plan_carries_no_seconds():
    plain = pa.table({"clip": ["a", "b"]})
    assert add_seconds(plain, "token", 1.0) is plain and seconds_by_stage(plain) == {}
    assert seconds_by_stage(add_seconds(start_seconds(plain, "read", 1.0), "token", 2.0)) == {"read": 1.0, "token": 2.0}


def record(minute: float, seconds: float = 10.0, **spent_s: float) -> Record:
    at = f"2026-01-01T{int(minute // 60):02d}:{int(minute % 60):02d}:{minute * 60 % 60:06.3f}+00:00"
    return documents.record(at=at, seconds=seconds, spent_s=spent_s)


def test_workers_at_once_share_the_wall():
    took = time_of([record(1, read=40, commit=20), record(1, read=60), record(2, read=60)])
    assert took.spent_s == {"read": 160, "commit": 20}
    assert took.wall_s == 120


def test_a_pause_between_two_runs_is_no_time_of_either():
    took = time_of([record(minute, read=60) for minute in (1, 2, 3, 700, 701)])
    assert took.wall_s == 5 * 60
    waiting = time_of([record(1, read=30), record(1 + PAUSE_S / 60, read=30)])  # half a minute without a worker
    assert waiting.wall_s == 30 + PAUSE_S


def test_every_second_of_sound_is_in_one_of_at_most_sixty_stretches():
    records = [record(1 + i / 10, seconds=i, read=6) for i in range(1000)]
    took = time_of(records)
    assert len(took.finished_s) == BINS and sum(took.finished_s) == sum(range(1000))
    assert took.bin_s * BINS == pytest.approx(took.wall_s, rel=1e-4)


def test_the_order_of_the_records_changes_nothing():
    records = [record(m, seconds=m, read=30) for m in (1, 5, 5.2, 9, 30, 31)]
    assert time_of(records) == time_of(records[::-1])


def test_a_record_without_times_counts_as_sound():
    old = documents.record(at="2026-01-01T00:00:07+00:00", seconds=3.0)
    assert time_of([old]).finished_s == [3.0]
    assert time_of([]).wall_s == 0


def test_seconds_are_written_to_the_millisecond():
    took = time_of([record(1, read=1 / 3, commit=2 / 3), record(1, read=1 / 7)])
    assert took.spent_s == {"read": 0.476, "commit": 0.667}
    assert took.wall_s == 1.0
