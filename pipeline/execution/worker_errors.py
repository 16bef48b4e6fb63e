"""Find what an exception from Ray means: the WavmillError of a worker, or an error of Ray itself, in one line."""

import re
from collections.abc import Iterator

from wavmill.pipeline.errors import (
    Changed,
    JobError,
    NotAllowed,
    NotThere,
    ObjectFault,
    Stopped,
    TooManyRejects,
    WavmillError,
)

KINDS = {
    kind.__name__: kind for kind in (JobError, TooManyRejects, Stopped, ObjectFault, NotThere, Changed, NotAllowed)
}
WRAPPED_IN = ("cause", "health_check_failure", "controller_failure")  # where Ray's exceptions keep the one they wrap
IN_TRACEBACK = re.compile(rf"^{re.escape(JobError.__module__)}\.(\w+): (.*)", re.MULTILINE | re.DOTALL)
DETAIL = re.compile(r"^\t\w+: .*$", re.MULTILINE)  # names and IDs of an actor
TRACEBACK = re.compile(r"(traceback: )?Traceback \(most recent call last\).*", re.DOTALL)
NODE = re.compile(r"\b(?:ip|node ip|ip address|owner address): ?([0-9a-f.:]*[0-9a-f])", re.IGNORECASE)
RETRIED = re.compile(r"\nFailed to [^\n]* attempts \(total backoff .*", re.DOTALL)  # Ray Data adds it to a message
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\[(`'\"])")
ENOUGH_CHARS, MOST_CHARS = 60, 300


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        kept = (getattr(error, name, None) for name in WRAPPED_IN)  # Ray's classes have one or none
        error = next((one for one in kept if isinstance(one, BaseException)), error.__cause__)


def expected(error: BaseException) -> WavmillError | None:
    """The WavmillError that a worker raised; None when there is none.

    Ray raises a class derived from both RayTaskError and the original, whose text is the whole traceback.
    """
    from ray.exceptions import ActorDiedError, RayTaskError

    for cause in causes(error):
        if isinstance(cause, WavmillError) and not isinstance(cause, RayTaskError):
            cause.args = (RETRIED.sub("", str(cause)),)
            return cause
        if isinstance(cause, ActorDiedError) and cause.actor_init_failed:  # of its exception only the text is kept
            found = IN_TRACEBACK.search(str(cause))
            if found and found[1] in KINDS:
                return KINDS[found[1]](RETRIED.sub("", found[2]).strip())
    return None


def ray_error_in(error: BaseException) -> BaseException | None:
    """The error of Ray itself (a lost node, a full disk) behind an exception; None when a program raised it."""
    from ray.exceptions import ActorDiedError, RayError, RayTaskError, UserCodeException

    found = None
    for cause in causes(error):
        if isinstance(cause, ActorDiedError) and cause.actor_init_failed:
            return None  # its text is the traceback of a program
        if isinstance(cause, RayError) and not isinstance(cause, RayTaskError | UserCodeException):
            found = cause
        elif isinstance(cause, RayTaskError) and not isinstance(cause.cause, RayError):
            return None  # a worker's exception of another kind
    return found


def one_line(error: BaseException) -> str:
    """An error of Ray in one line: its type, what happened, and the node that it names."""
    from ray.exceptions import ObjectLostError

    text = str(error)
    node = NODE.search(text)
    if isinstance(error, ObjectLostError):  # its first paragraph is about how to find where an object was made
        text = [*text.split("\n\n"), text][1]
    line = first_sentence(text)
    at = f" (node {node[1]})" if node and node[1] not in line else ""
    return ": ".join(filter(None, [type(error).__name__, line.rstrip(".")])) + at


def first_sentence(text: str) -> str:
    """The first sentence of a message of Ray, without the traces and counters that follow."""
    text = TRACEBACK.sub("", DETAIL.sub("", text))
    sentences = SENTENCE_END.split(" ".join(text.split()))
    line = sentences.pop(0)
    while sentences and len(line) < ENOUGH_CHARS:
        line += " " + sentences.pop(0)
    return line if len(line) <= MOST_CHARS else line[:MOST_CHARS].rsplit(" ", 1)[0] + " ..."
