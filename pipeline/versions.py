"""Version numbers: whoever creates _mill/choice/<name>/vN.json first has number N of a name, for ever."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.store import Store


def claim(
    store: Store, name: str, fingerprint: str, plans: int, rest: Callable[[], dict[str, Any]] = dict
) -> dict[str, Any]:
    """The choice of what has this fingerprint and number of plans (0: a model); created with ``rest`` if there is none.

    Datasets and models of one name count along together.
    """
    number = 0
    for choice in _choices(store, name):
        if _is(choice, fingerprint, plans):
            return choice
        number = choice["version"]
    said = rest()
    while True:
        number += 1
        mine = {
            "format": "wavmill-choice-1",
            "name": name,
            "version": number,
            "fingerprint": fingerprint,
            "plans": plans,
            **said,
        }
        there = json.loads(store.create_once(_key(name, number), json.dumps(mine).encode()))
        if _is(there, fingerprint, plans):
            return there


def claimed(store: Store, name: str, fingerprint: str, plans: int) -> dict[str, Any] | None:
    """The choice, or None while there is none."""
    return next((one for one in _choices(store, name) if _is(one, fingerprint, plans)), None)


def _is(choice: dict[str, Any], fingerprint: str, plans: int) -> bool:
    return (choice["fingerprint"], choice["plans"]) == (fingerprint, plans)


def _choices(store: Store, name: str) -> Iterator[dict[str, Any]]:
    number = 1
    while True:
        try:
            yield json.loads(store.read(_key(name, number)))
        except FileNotFoundError:
            return
        number += 1


def _key(name: str, number: int) -> str:
    return f"_mill/choice/{name}/v{number}.json"
