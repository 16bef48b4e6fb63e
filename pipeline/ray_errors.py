"""What Ray raises, in a person's words: the error that a worker raised itself, or the first sentence of Ray's own."""

import re
from collections.abc import Iterator

from pipeline.errors import WavmillError

MOST = 300  # characters of a message of Ray's: the rest are its counters, hints and traces
NODE = re.compile(r"(?i)\b(?:node|raylet)\b[^.\n]*?\b(?:id|ip|address)[:= ]+\[?([0-9a-f]{8,}|\d+(?:\.\d+){3})")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and everything that it says it came from; Ray keeps a worker's exception in ``cause``."""
    seen = set[int]()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "cause", None) or error.__cause__


def own_error(error: BaseException) -> WavmillError | None:
    """The error of wavmill's that a worker raised, as it was there; None when it raised none.

    Ray hands it over as an object that is both a RayTaskError and the error, whose text is a whole traceback.
    """
    from ray.exceptions import RayTaskError

    found = [cause for cause in causes(error) if isinstance(cause, WavmillError)]
    plain = [one for one in found if not isinstance(one, RayTaskError)]
    return plain[0] if plain else None


def first_sentence(text: str) -> str:
    """What a message of Ray's says first, on one line, with the node that it names further on."""
    text = " ".join(text.split())
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text, maxsplit=1)[0]
    if len(first) > MOST:
        first = f"{first[:MOST].rstrip()}..."
    node = NODE.search(text)
    return f"{first} (node {node[1][:12]})" if node and node[1][:8] not in first else first


def in_short(error: BaseException) -> str:
    """The kind of an error of Ray's and the first sentence of its text."""
    name = type(error).__name__.partition("(")[0]
    return f"{name}: {first}" if (first := first_sentence(str(error))) else name
