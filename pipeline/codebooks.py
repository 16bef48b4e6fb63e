"""A codebook in a store: a folder with codebook.safetensors, and codebook.json written last."""

import json
from typing import Any

import numpy as np

from model.codebook import Codebook
from pipeline.errors import JobError
from pipeline.store import open_store

TENSOR, DESCRIBED = "codebook.safetensors", "codebook.json"
SAID = {"codes", "dim", "sha256", "recipe", "report"}  # of codebook.json


def describe_codebook(address: str) -> dict[str, Any] | None:
    """What codebook.json says, or None where there is no codebook."""
    try:
        described = json.loads(open_store(address).read(DESCRIBED))
        if described["format"] != "wavmill-codebook-1" or SAID - described.keys():
            raise ValueError("not one of ours")
        return described
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{address}/{DESCRIBED} is not a wavmill codebook") from error


def load_codebook(address: str, sha256: str = "auto") -> Codebook:
    """The codebook at an address. JobError when it is not there, damaged, or not the one of the hash."""
    described = describe_codebook(address)
    if described is None:
        raise JobError(f"there is no codebook at {address}")
    if sha256 not in ("auto", described["sha256"]):
        raise JobError(
            f"the codebook at {address} is {described['sha256'][:12]}, the job was planned with {sha256[:12]}"
        )
    try:
        return Codebook.read(open_store(address).read(TENSOR), described)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise JobError(f"the codebook at {address} is damaged: {error}") from error


def codebook_files(address: str, sha256: str = "auto") -> dict[str, bytes]:
    """The codebook's files, by their paths in a version that carries it. JobError as ``load_codebook``."""
    load_codebook(address, sha256)  # it is there, whole, and the one that is meant
    return {f"codebook/{name}": open_store(address).read(name) for name in (TENSOR, DESCRIBED)}


def save_codebook(address: str, codebook: Codebook) -> dict[str, Any]:
    """Write the two files, the description last: what is described is there. JobError when it is not finite."""
    if not np.isfinite(codebook.centroids).all():
        raise JobError(f"{address}: the codes would not be finite numbers: a feature that they were fitted on is not")
    store, tensor = open_store(address), codebook.tensor_bytes()
    described = codebook.described(tensor)
    store.put(TENSOR, tensor)
    store.put(DESCRIBED, json.dumps(described, indent=1, allow_nan=False).encode())
    return described
