"""Which columns each stage of a job reads, makes and drops."""

from functools import partial
from itertools import product
from typing import Any

import pytest
from inline import words

from wavmill.pipeline.execution.apply import Apply
from wavmill.pipeline.execution.local_executor import LocalExecutor
from wavmill.pipeline.execution.stages import stages_of
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import make_plans, todo_of
from wavmill.pipeline.workspace import Workspace

JOB = """
name: a
source: {{kind: files, path: "{top}/corpus"}}
feature: {{kind: mel}}
token: {{kind: kmeans, codebook: "{top}/codebook"}}
{window}
keep: [{keep}]
store: "{top}/store"
"""
WINDOWS = (
    "",
    *(f"window: {{kind: fixed, over: {over}, length_frames: 9, stride_frames: 5}}" for over in ("token", "feature")),
)
KEPT = ("feature", "token", "feature, token")


@pytest.fixture(params=product(WINDOWS, KEPT), ids=str)
def job(request: Any, tmp_path: Any) -> Any:
    window, kept = request.param
    return parse_job(JOB.format(top=tmp_path, window=window, keep=kept + (", window" if window else "")))


def test_each_step_runs_once_where_what_it_reads_has_not_been_dropped_and_what_is_kept_arrives(job):
    columns, ran = {"audio"}, []
    for stage in stages_of(Workspace(job)):
        for step in stage.choices:
            assert step.reads in columns
            columns.add(step.writes)
            ran.append(step)
        if isinstance(stage.work, Apply):
            columns -= {*stage.work.drop}
    assert sorted(map(id, ran)) == sorted(map(id, job.steps))
    assert {*job.keep} <= columns


def test_a_feature_that_nobody_keeps_leaves_its_worker_only_for_windows_over_it(job):
    _, feature, *_ = stages_of(Workspace(job))
    over_feature = job.window is not None and job.window.reads == "feature"
    assert ("feature" in feature.work.drop) == ("feature" not in job.keep and not over_feature)


def test_the_driver_gets_the_counts_of_every_shard(few, tmp_path):
    made = words(few, tmp_path / "store")
    plans, got = make_plans(Workspace(made)), []
    for table in LocalExecutor(0)(made, partial(stages_of, Workspace(made)), list(todo_of(plans, set())), got.append):
        got += table.to_pylist()
    assert [set(row) for row in got] == [{"shard", "found", "done", "rejected", "seconds", "reasons", "fault"}] * 3
    assert sorted((row["found"], row["done"], row["rejected"], row["reasons"], row["fault"]) for row in got) == [
        (1, 0, 1, '{"not_audio": 1}', ""),
        (1, 1, 0, "{}", ""),
        (1, 1, 0, "{}", ""),
    ]
    assert sum(row["seconds"] for row in got) == pytest.approx(0.6)
