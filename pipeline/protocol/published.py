"""Find published datasets and models: <store>/<name>/vN/dataset.json or model.json, newest version by default."""

import re
from functools import lru_cache
from typing import TypeVar

from wavmill.pipeline.dataset_json import DATASET, PublishedDataset
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.model_json import MODEL, PublishedModel
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store, join, split

VERSION = re.compile(r"v([1-9][0-9]*)$")
P = TypeVar("P", PublishedDataset, PublishedModel)


def numbers(address: str, file: str = DATASET) -> list[int]:
    """The numbers of the versions below <store>/<name> that have this file (written last), ascending."""
    found = (re.fullmatch(rf"v([1-9][0-9]*)/{re.escape(file)}", entry.key) for entry in open_store(address).list())
    return sorted(int(match[1]) for match in found if match)


def find_dataset(address: str) -> PublishedDataset:
    """The dataset at an address, its newest version unless one is named. JobError when there is none."""
    return _read_dataset(_newest(address, DATASET, "dataset"))


def find_model(address: str) -> PublishedModel:
    """The model at an address, its newest version unless one is named. JobError when there is none."""
    return _read_model(_newest(address, MODEL, "model"))


def find(address: str) -> PublishedDataset | PublishedModel:
    """The dataset or model of an address, whichever is there, of the newest version unless one is named."""
    if VERSION.fullmatch(split(address)[1]):
        is_model = open_store(address).stat(MODEL) is not None
    else:
        is_model = max(numbers(address, MODEL), default=0) > max(numbers(address), default=0)
    return find_model(address) if is_model else find_dataset(address)


def read_published(store: Store, top: str, file: str, kind: type[P]) -> P:
    """Read dataset.json or model.json at ``top`` of a store. FileNotFoundError; JobError when it is not one of ours."""
    url = join(store.url, top) if top else store.url
    try:
        return kind.read(store.read(f"{top}/{file}" if top else file)).model_copy(update={"address": url})
    except ValueError as error:
        what = f"{url}/{file} is not a wavmill {file.removesuffix('.json')}"
        raise JobError(what if isinstance(error, UnicodeDecodeError) else f"{what}: {error}") from error


def _newest(address: str, file: str, kind: str) -> str:
    """The address of a version."""
    if VERSION.fullmatch(split(address)[1]):
        return address
    if not (found := numbers(address, file)):
        raise JobError(f"there is no {kind} at {address}")
    return join(address, f"v{found[-1]}")


@lru_cache(maxsize=64)
def _read_dataset(address: str) -> PublishedDataset:
    """Cached, as a published version never changes."""
    try:
        return read_published(open_store(address), "", DATASET, PublishedDataset)
    except FileNotFoundError as error:
        raise JobError(f"there is no dataset at {address}") from error


@lru_cache(maxsize=64)
def _read_model(address: str) -> PublishedModel:
    try:
        return read_published(open_store(address), "", MODEL, PublishedModel)
    except FileNotFoundError as error:
        raise JobError(f"there is no model at {address}") from error
