"""run --retry REASON: what was rejected for a reason is milled once more, and its newest outcome counts."""

import pytest
from inline import digest, mill, rows_of, run_inline, without_fence, words

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.publish import publish
from wavmill.pipeline.protocol.retry import retried
from wavmill.pipeline.store import objects
from wavmill.pipeline.workspace import Workspace


@pytest.fixture
def half_deaf(corpus, tmp_path, monkeypatch):
    """A job that was run while no decoder read FLAC: 24 files, one of them three clips, were taken for no sound."""
    job = words(corpus, tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(objects, "parts_of_each", without_fence)  # in this process, where decoders can be replaced
        patch.setattr(decode.Libsndfile, "open", lambda *_: None)
        patch.setattr(decode.Ffmpeg, "open", lambda *_: None)
        first = run_inline(job)
    assert (first.counts.done, first.counts.reasons) == (0, {"not_audio": 26, "empty": 1})
    return job


def test_afterwards_everything_is_as_if_nothing_had_been_wrong(half_deaf, corpus, tmp_path):
    plans = retried(Workspace(half_deaf), make_plans(Workspace(half_deaf)), "not_audio")
    assert mill(half_deaf, plans) == 26  # and not the empty one
    second, undisturbed = publish(Workspace(half_deaf), plans), words(corpus, tmp_path / "undisturbed")
    right = run_inline(undisturbed)
    assert second.version == 2
    names = ("objects", "clips", "done", "rejected")
    assert [getattr(second.counts, name) for name in names] == [getattr(right.counts, name) for name in names]
    assert sorted(second.counts.reasons.items()) == sorted(right.counts.reasons.items())
    assert digest(rows_of(half_deaf, second)) == digest(rows_of(undisturbed, right))


def test_a_retry_that_was_killed_goes_on_and_is_not_planned_twice(half_deaf):
    plans = retried(Workspace(half_deaf), make_plans(Workspace(half_deaf)), "not_audio")
    mill(half_deaf, plans, most=5)
    again = retried(Workspace(half_deaf), make_plans(Workspace(half_deaf)), "not_audio")
    assert [plan.number for plan in again] == [1, 2]
    assert mill(half_deaf, again) == 21
    assert publish(Workspace(half_deaf), again).counts.done == 26


def test_the_plain_command_finishes_a_retry_that_was_killed(half_deaf):
    mill(half_deaf, retried(Workspace(half_deaf), make_plans(Workspace(half_deaf)), "not_audio"), most=5)
    assert run_inline(half_deaf).version == 2


def test_what_fails_again_is_rejected_once(half_deaf):
    plans = retried(Workspace(half_deaf), make_plans(Workspace(half_deaf)), "empty")
    mill(half_deaf, plans)
    assert publish(Workspace(half_deaf), plans).counts.reasons == {"not_audio": 26, "empty": 1}


def test_a_reason_that_nothing_was_rejected_for_is_answered_with_those_there_are(half_deaf):
    with pytest.raises(JobError, match=r"no clip .* was rejected for that; there are: not_audio, empty"):
        retried(Workspace(half_deaf), make_plans(Workspace(half_deaf)), "non_finite")


def test_a_run_that_is_not_finished_is_finished_first(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    plans = make_plans(Workspace(job))
    mill(job, plans, most=7)
    with pytest.raises(JobError, match="20 shards are left; run it without --retry"):
        retried(Workspace(job), plans, "empty")
