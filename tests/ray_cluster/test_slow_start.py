"""A Ray that does not start, or is slow to, stops a verb in one line: the same command goes on later."""

import pytest
import ray

from wavmill.cluster.connect import connect
from wavmill.pipeline.errors import JobError, Stopped


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup."),
        TimeoutError("Timed out while waiting for a port"),
        RuntimeError("Failed to start GCS."),
        ConnectionError("Could not read the session"),
        OSError(28, "No space left on device"),
        ValueError("a port is taken"),
        ray.exceptions.RaySystemError("The raylet is gone"),
        ray.exceptions.GetTimeoutError("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ray_says_at_its_start_is_a_stop(error, monkeypatch):
    def init(**_):
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Stopped, match="did not start") as caught:
        connect("local")
    assert "\n" not in str(caught.value) and str(error).split()[-1].rstrip(".") in str(caught.value)


@pytest.mark.parametrize("error", [KeyError("bug"), TypeError("bug"), AssertionError("bug")])
def test_a_bug_stays_a_bug(error, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        connect("local")


def test_other_versions_are_a_wrong_job(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(RuntimeError("Version mismatch: 1 and 2")))
    with pytest.raises(JobError):
        connect("local")
