"""What an exception from Ray is turned into: the worker's own error, or one line about a fault of Ray's."""

import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from ray import exceptions
from ray.core.generated.common_pb2 import OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED as UNRECONSTRUCTABLE
from ray.core.generated.common_pb2 import ActorDiedErrorContext, Address
from ray.data._internal.util import _annotate_exception_with_retry_context as retried
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from wavmill.pipeline import errors
from wavmill.pipeline.errors import WavmillError
from wavmill.pipeline.execution.worker_errors import expected, one_line, ray_error_in
from wavmill.pipeline.training.finite import Diverged

EXPECTED = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, WavmillError)]
EXPECTED = [one for one in EXPECTED if one is not WavmillError] + [Diverged]
TEXT = "feature.model: out/hubert is no checkpoint\n  it has no config.json"
PAGE = "Traceback (most recent call last):\n" + '  File "a.py", line 1, in f\n    work()\n' * 40
NODE = "10.1.2.3"
OBJECT = "00ffffffffffffffffffffffffffffffffffffff0100000001e1f505"
ACTOR = ActorDiedErrorContext(
    class_name="MapWorker(MapBatches(Apply))",
    actor_id=b"\x01" * 16,
    pid=7,
    name="x",
    ray_namespace="y",
    node_ip_address=NODE,
    error_message="The actor is dead because its node has died. Node Id: ab12"
    + "\n\tthe actor's node was terminated" * 9,
)
OWNER = Address(ip_address=NODE, port=7, worker_id=b"\x02" * 28, node_id=b"\x03" * 28).SerializeToString()
LOST = {"object_ref_hex": OBJECT, "owner_address": OWNER, "call_site": "a.py:1 | b.py:2" * 40}
DIED = f"Task failed because the node it was running on is dead or unavailable. Node IP: {NODE}, node ID: ab. {PAGE}"


def from_worker(cause: BaseException) -> RayTaskError:
    """As a worker of Ray returns it: with the traceback in its text."""
    text = f"{PAGE}{type(cause).__module__}.{type(cause).__qualname__}: {cause}\n"
    return RayTaskError("f", text, cause, "ray::f", 1, NODE)


def faults() -> Iterator[RayError]:
    """One of every kind in ray.exceptions that Ray itself raises."""
    made = {
        "ActorDiedError": lambda kind: kind(ACTOR),
        "ActorUnavailableError": lambda kind: kind(DIED, b"\x01" * 16),
        "ObjectReconstructionFailedError": lambda kind: kind(OBJECT, UNRECONSTRUCTABLE, None, OWNER, "a.py:1" * 90),
        "RayActorError": lambda kind: kind("ab" * 16, f"The actor {DIED}"),
        "RaySystemError": lambda kind: kind("The raylet died.", PAGE),
    }
    not_raised = ("RayError", "RayTaskError", "UserCodeException", "CrossLanguageError")
    for name, kind in inspect.getmembers(exceptions, inspect.isclass):
        if not issubclass(kind, RayError) or name in not_raised:
            continue
        if name in made:
            yield made[name](kind)
        elif issubclass(kind, exceptions.ObjectLostError):
            yield kind(**LOST)
        elif name in ("LocalRayletDiedError", "WorkerCrashedError", "TaskCancelledError"):
            yield kind()
        else:
            yield kind(DIED)


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_a_workers_expected_error_comes_without_the_traceback_that_ray_adds(kind):
    raised = from_worker(kind(TEXT)).as_instanceof_cause()
    assert len(str(raised).splitlines()) > 40  # what a person would see
    nested = from_worker(raised).as_instanceof_cause()
    over = RuntimeError("a stage failed")
    over.__cause__ = nested
    checked = WorkerHealthCheckFailedError("a worker's poll failed", nested)
    for error in (raised, nested, over, checked, pickle.loads(pickle.dumps(from_worker(kind(TEXT))))):
        found = expected(error)
        assert (type(found), str(found), found.exit_code) == (kind, TEXT, kind.exit_code)


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_what_ray_data_adds_to_the_message_of_an_error_is_left_out(kind):
    how_often: dict[str, Any] = {"attempts": 1, "max_attempts": 1, "total_backoff_s": 0.0}
    error = kind(TEXT)
    for stage in ("apply UDF transform", "read a block"):
        error = retried(error, description=stage, exception_str=TEXT, **how_often)
    assert len(str(error)) > 400  # Ray still does it
    found = expected(from_worker(error).as_instanceof_cause())
    assert (type(found), str(found)) == (kind, TEXT)


@pytest.mark.parametrize("kind", EXPECTED[:-1], ids=lambda kind: kind.__name__)
def test_an_expected_error_in_an_actors_start_is_read_from_the_text_that_ray_keeps_of_it(kind):
    found = expected(ActorDiedError(from_worker(kind(TEXT))))
    assert (type(found), str(found)) == (kind, TEXT)


@pytest.mark.parametrize("fault", list(faults()), ids=lambda fault: type(fault).__name__)
def test_a_fault_of_ray_is_said_in_one_line(fault):
    line = one_line(fault)
    assert "\n" not in line and "\t" not in line and len(line) < 400 and "Traceback" not in line
    assert line.startswith(type(fault).__name__) and (len(line) > 40 or not str(fault))
    assert line.count(NODE) == (NODE in str(fault))
    assert not line.partition(" (node ")[0].endswith(".")
    nested = from_worker(fault)  # Ray puts another error in the place of one that it cannot pickle
    assert ray_error_in(fault) is fault and ray_error_in(nested.as_instanceof_cause()) is nested.cause


def test_a_node_that_the_first_sentence_names_in_other_words_is_not_named_again():
    text = f"The worker on {NODE} has died, and nobody knows why it did, or what it was doing then. Node IP: {NODE}"
    assert one_line(RayError(text)).count(NODE) == 1


def test_what_happened_is_in_the_line():
    by_name = {type(fault).__name__: one_line(fault) for fault in faults()}
    assert "lost due to node failure" in by_name["ObjectLostError"]
    assert "owner has exited" in by_name["OwnerDiedError"]
    assert "its node has died" in by_name["ActorDiedError"]
    assert "node it was running on is dead" in by_name["NodeDiedError"]
    assert "cannot be reconstructed" in by_name["ObjectReconstructionFailedError"]


def test_a_bug_in_a_worker_stays_a_bug_with_its_traceback():
    for error in (ZeroDivisionError("a"), from_worker(ZeroDivisionError("a")).as_instanceof_cause()):
        assert expected(error) is None and ray_error_in(error) is None
    started = ActorDiedError(from_worker(ZeroDivisionError("a")))
    assert expected(started) is None and ray_error_in(started) is None
