"""A codebook in a store: a folder with codebook.safetensors, and codebook.json written last."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.at_rest import AtRest
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import read_checked, sha256

TENSOR, DESCRIBED = "codebook.safetensors", "codebook.json"


class CodebookDescription(AtRest):
    """codebook.json: (codes, dim) is the shape of the centroids, sha256 the hash of the safetensors file beside it."""

    FORMAT: ClassVar[str] = "wavmill-codebook-1"
    codes: int
    dim: int
    sha256: str
    recipe: Mapping[str, object]  # what a frame must be to be compared with the centroids (job.recipe_of)
    report: dict[str, Any]  # how it was learnt (fit.py)


def describe_codebook(address: str) -> CodebookDescription | None:
    """What codebook.json says, or None where there is no codebook. JobError when it is not one of ours."""
    if not address.startswith("s3://") and Path(address).is_file():
        wanted = "it should be a folder made by 'wavmill fit'; other k-means files (.npy, joblib) cannot be imported"
        raise JobError(f"token.codebook: {address} is a file; {wanted}")
    try:
        return _description_in(address, open_store(address).read(DESCRIBED))
    except FileNotFoundError:
        return None


def load_codebook(address: str, expected: str = "auto") -> Codebook:
    """The codebook at an address. JobError when it is not there, damaged, or not the one of the ``expected`` sha256."""
    return codebook_in(address, codebook_files(address, expected))


def codebook_files(address: str, expected: str = "auto") -> dict[str, bytes]:
    """The codebook's files, by their paths in a version that carries it. JobError as ``load_codebook``."""
    store = open_store(address)
    try:
        description = store.read(DESCRIBED)
    except FileNotFoundError as error:
        raise JobError(f"there is no codebook at {address}") from error
    digest = _description_in(address, description).sha256
    if expected not in ("auto", digest):
        raise JobError(f"the codebook at {address} is {digest[:12]}, the job was planned with {expected[:12]}")
    other = JobError(f"the codebook at {address} is damaged: {TENSOR} is not the file that {DESCRIBED} describes")
    try:
        tensor = read_checked(store, TENSOR, digest, other)
    except FileNotFoundError as error:
        raise JobError(f"the codebook at {address} is damaged: {error}") from error
    return {f"codebook/{TENSOR}": tensor, f"codebook/{DESCRIBED}": description}


def codebook_in(address: str, files: dict[str, bytes]) -> Codebook:
    """The codebook in the files that ``codebook_files`` has read at an address."""
    try:
        described = _description_in(address, files[f"codebook/{DESCRIBED}"])
        return Codebook(Codebook.centroids_in(files[f"codebook/{TENSOR}"]), described.recipe, described.report)
    except (KeyError, ValueError) as error:
        raise JobError(f"the codebook at {address} is damaged: {error}") from error


def _description_in(address: str, description: bytes) -> CodebookDescription:
    try:
        return CodebookDescription.read(description)
    except ValueError as error:
        raise JobError(f"{address}/{DESCRIBED} is not a wavmill codebook: {error}") from error


def save_codebook(address: str, codebook: Codebook) -> CodebookDescription:
    """Write the two files, the description last: what is described is there. JobError when it is not finite."""
    if not np.isfinite(codebook.centroids).all():
        raise JobError(f"{address}: the codes would not be finite numbers: a feature that they were fitted on is not")
    store, tensor = open_store(address), codebook.tensor_bytes()
    codes, dim = codebook.centroids.shape
    described = CodebookDescription(
        codes=codes, dim=dim, sha256=sha256(tensor), recipe=codebook.recipe, report=codebook.report
    )
    store.put(TENSOR, tensor)
    store.put(DESCRIBED, described.written())
    return described
