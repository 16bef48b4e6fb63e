"""Version numbers: the first to create _mill/choice/<name>/vN.json owns number N of a name."""

from collections.abc import Callable, Iterator
from typing import ClassVar

from pydantic import Field

from wavmill.pipeline.at_rest import AtRest
from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.store.base import Store


class Chosen(AtRest):
    """The contents of a version of a dataset: one attempt per shard, as (number of its plan, shard, attempt)."""

    at: str  # UTC, ISO 8601
    digest: str  # of the shards' keys
    shards: list[tuple[int, str, str]]


class Claim(AtRest):
    """The owner of a version number. A model's has only the first four fields."""

    FORMAT: ClassVar[str] = "wavmill-choice-1"
    INDENT: ClassVar[int | None] = None
    name: str
    version: int
    fingerprint: str
    plans: int  # plans of the dataset; 0: a model
    at: str = ""
    digest: str = ""
    shards: list[tuple[int, str, str]] = Field([])

    def is_of(self, fingerprint: str, plans: int) -> bool:
        return (self.fingerprint, self.plans) == (fingerprint, plans)


def claim_version(
    store: Store, name: str, fingerprint: str, plans: int, choose: Callable[[], Chosen] | None = None
) -> Claim:
    """The claim for a fingerprint and number of plans; created with the result of ``choose`` if there is none.

    Datasets and models of one name share their version numbers.
    """
    number = 0
    for known in _claims(store, name):
        if known.is_of(fingerprint, plans):
            return known
        number = known.version
    chosen = choose().as_json() if choose is not None else {}
    while True:
        number += 1
        mine = Claim(name=name, version=number, fingerprint=fingerprint, plans=plans, **chosen)
        first = Claim.read(store.create_once(_key(name, number), mine.written()))
        if first.is_of(fingerprint, plans):
            return first


def find_claim(store: Store, name: str, fingerprint: str, plans: int) -> Claim | None:
    """The claim, or None if there is none."""
    return next((known for known in _claims(store, name) if known.is_of(fingerprint, plans)), None)


def read_claim(store: Store, key: str) -> Claim:
    """Read a claim. FileNotFoundError when there is none, Stopped when it cannot be parsed."""
    try:
        return Claim.read(store.read(key))
    except ValueError as error:
        raise Stopped(f"{store.url}/{key} is damaged: what it names is not known") from error


def _claims(store: Store, name: str) -> Iterator[Claim]:
    number = 1
    while True:
        try:
            yield read_claim(store, _key(name, number))
        except FileNotFoundError:
            return
        number += 1


def _key(name: str, number: int) -> str:
    return f"_mill/choice/{name}/v{number}.json"
