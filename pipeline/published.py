"""Finding what was published: <store>/<name>/v1/dataset.json or model.json, and the newest version of a name."""

import json
import re
from functools import lru_cache
from typing import Any

from pipeline.errors import JobError
from pipeline.store import join, open_store, split

DATASET = "dataset.json"
VERSION = re.compile(r"v([1-9][0-9]*)$")


def numbers(address: str, file: str = DATASET) -> list[int]:
    """The versions below <store>/<name> that have this file, written last, rising."""
    found = (re.fullmatch(rf"v([1-9][0-9]*)/{re.escape(file)}", entry.key) for entry in open_store(address).list())
    return sorted(int(match[1]) for match in found if match)


def find_dataset(address: str) -> dict[str, Any]:
    """dataset.json of an address, its newest version unless one is named, with ``address`` of that version added."""
    return find_published(address, "dataset")


def find_published(address: str, kind: str) -> dict[str, Any]:
    """<kind>.json, as ``find_dataset``. JobError when there is none, or not one of ours."""
    if not VERSION.fullmatch(split(address)[1]):
        if not (found := numbers(address, f"{kind}.json")):
            raise JobError(f"there is no {kind} at {address}")
        address = join(address, f"v{found[-1]}")
    return _read(address, kind)


@lru_cache(maxsize=64)
def _read(address: str, kind: str) -> dict[str, Any]:
    """A published version never changes, so it is read once."""
    try:
        said = json.loads(open_store(address).read(f"{kind}.json"))
        if said["format"] != f"wavmill-{kind}-1":
            raise ValueError("not one of ours")
        return {**said, "address": open_store(address).url}
    except FileNotFoundError as error:
        raise JobError(f"there is no {kind} at {address}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{address}/{kind}.json is not a wavmill {kind}") from error
