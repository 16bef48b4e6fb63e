"""What stops a worker is told as it was raised there, and Ray's own errors are one line."""

import inspect

import pytest
from ray import exceptions
from ray.exceptions import RayTaskError

from pipeline.errors import JobError, NotAllowed, ObjectFault, Stopped, TooManyRejects, WavmillError
from pipeline.ray_errors import MOST, in_short, own_error
from pipeline.run import results

KINDS = [JobError, NotAllowed, ObjectFault, Stopped, TooManyRejects, WavmillError]


def raised(error: Exception) -> RayTaskError:
    """An error of a worker as its driver gets it from Ray."""
    text = f"\x1b[36mray::task()\x1b[39m (pid=1, ip=10.0.0.1)\n{'  File x.py, line 1, in f' * 99}\n{error}"
    return RayTaskError("task", text, error)


def dual(error: Exception) -> Exception:
    return raised(error).as_instanceof_cause()


def chained(error: Exception) -> Exception:
    outer = RuntimeError("what the stage says")
    outer.__cause__ = dual(error)
    return outer


def in_user_code(error: Exception) -> Exception:
    outer = exceptions.UserCodeException("failed")
    outer.__cause__ = error
    return dual(outer)


class Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def iter_batches(self, **_: object) -> object:
        raise self.error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("wrapped", [lambda error: error, raised, dual, chained, in_user_code])
def test_an_error_of_a_worker_is_told_as_it_was_raised(kind, wrapped):
    with pytest.raises(kind) as caught:
        list(results(Broken(wrapped(kind("what is wrong, and where")))))  # type: ignore[arg-type]
    assert type(caught.value) is kind and str(caught.value) == "what is wrong, and where"


def test_a_bug_in_a_worker_stays_a_traceback():
    assert own_error(dual(KeyError("x"))) is None
    with pytest.raises(KeyError):
        list(results(Broken(dual(KeyError("x")))))  # type: ignore[arg-type]


def all_of_ray() -> list[BaseException]:
    """One of every kind of error that Ray has, made with texts for whatever its kind asks for."""
    made: list[BaseException] = []
    given = {
        "object_ref_hex": "ab" * 14,
        "owner_address": None,
        "call_site": "x.py",
        "actor_id": "ab",
        "error_msg": "m",
    }
    for _, kind in inspect.getmembers(exceptions, inspect.isclass):
        if not issubclass(kind, exceptions.RayError) or issubclass(kind, RayTaskError):
            continue
        wanted = [one for one in inspect.signature(kind.__init__).parameters.values() if one.name != "self"]
        wanted = [one for one in wanted if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
        try:
            made.append(kind(*(given.get(one.name, "It was lost. " + "More of it. " * 99) for one in wanted)))
        except (TypeError, AttributeError, AssertionError):
            continue  # wants an object of Ray's own
    return made


@pytest.mark.parametrize("error", all_of_ray(), ids=lambda error: type(error).__name__)
def test_an_error_of_rays_own_is_one_line_with_its_kind(error):
    said = in_short(error)
    assert "\n" not in said and len(said) <= MOST + 80 and said.startswith(type(error).__name__)


def test_most_kinds_of_ray_are_covered():
    assert len(all_of_ray()) > 20


def test_a_lost_node_is_named():
    text = (
        "Task failed because the node it was running on is dead or unavailable.\n\tNode IP: 10.0.0.7, node ID: "
        + "ab" * 28
    )
    assert in_short(exceptions.NodeDiedError(text + "\nCounters: " + "x=1 " * 500)).endswith("(node 10.0.0.7)")
    with pytest.raises(Stopped) as caught:
        list(results(Broken(exceptions.NodeDiedError(text + "\n" + "x=1 " * 500))))  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300 and "10.0.0.7" in str(caught.value)
