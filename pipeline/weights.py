"""Pretrained weights: in a folder, in an s3:// folder, or on the Hugging Face hub. What they are, and how they come.

What identifies a model is the sha256 of its config.json and of its weight files, wherever they lie; on S3, where that
would mean to read them all, their sizes and etags stand for them.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import JobError, Stopped, WavmillError
from pipeline.store import open_store

CONFIG, PREPARED = "config.json", "preprocessor_config.json"
FORMATS = ("*.safetensors", "pytorch_model*.bin")  # in order of preference; a .bin is read with weights_only


class Weights(NamedTuple):
    """What is known of a model before it is loaded."""

    config: dict[str, Any]
    prepared: dict[str, Any]  # preprocessor_config.json; empty where there is none
    sha256: str
    revision: str  # the commit on the hub, else ""


def is_folder(model: str) -> bool:
    """Whether a model's name is meant as a folder of this machine, and not as one on the hub."""
    return model.startswith(("/", ".", "~")) or (bool(model) and Path(model).is_dir())


def describe(model: str, revision: str = "main") -> Weights:
    """Read what a model is. JobError when it is not there, or not to be read as one."""
    if model.startswith("s3://"):
        return _in_store(model)
    if is_folder(model):
        return _in_folder(Path(model).expanduser(), model)
    return _on_hub(model, revision)


def fetched(model: str, weights_sha256: str, revision: str = "") -> Path:
    """The folder of this machine with the weights. Stopped when they are others than the job was planned with."""
    if is_folder(model):
        folder = Path(model).expanduser()
        there = _in_folder(folder, model).sha256
    elif model.startswith("s3://"):
        folder, there = _downloaded(model, weights_sha256), weights_sha256
    else:
        from huggingface_hub import snapshot_download

        with _said_by_hub(model, revision, Stopped):
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=[CONFIG, *FORMATS]))
        there = _in_folder(folder, model).sha256
    if there != weights_sha256:
        raise Stopped(f"the weights of {model} here are {there[:12]}, the job was planned with {weights_sha256[:12]}")
    return folder


def _in_folder(folder: Path, model: str) -> Weights:
    if not folder.is_dir():
        raise JobError(f"feature.model: there is no folder {model}")
    names = [path.name for path in folder.iterdir()]
    hashes = {name: _hash_of(folder / name, (folder / name).stat().st_mtime_ns) for name in _wanted(names, model)}
    prepared = (folder / PREPARED).read_bytes() if PREPARED in names else b"{}"
    return Weights(_json(folder / CONFIG, model), json.loads(prepared), _digest(hashes), "")


def _in_store(model: str) -> Weights:
    store = open_store(model)
    there = {entry.key: entry for entry in store.list() if "/" not in entry.key}
    hashes = {name: f"{there[name].size}:{there[name].stamp}" for name in _wanted(list(there), model)}
    prepared = store.read(PREPARED) if PREPARED in there else b"{}"
    return Weights(json.loads(store.read(CONFIG)), json.loads(prepared), _digest(hashes), "")


def _on_hub(model: str, revision: str) -> Weights:
    import httpx
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    with _said_by_hub(model, revision, JobError):
        try:
            return _asked(model, revision, HfApi(), hf_hub_download)
        except (httpx.TransportError, OfflineModeIsEnabled) as error:  # it may have been here before
            try:
                folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
            except LocalEntryNotFoundError:
                raise error from None
    return _in_folder(folder, model)._replace(revision=folder.name)


def _asked(model: str, revision: str, api: Any, download: Any) -> Weights:
    said = api.model_info(model, revision=revision, files_metadata=True)
    files = {one.rfilename: one for one in said.siblings or []}
    commit, hashes = str(said.sha), {}
    small = {name: Path(download(model, name, revision=commit)) for name in (CONFIG, PREPARED) if name in files}
    for name in _wanted(list(files), model):
        if name == CONFIG:
            hashes[name] = hashlib.sha256(small[CONFIG].read_bytes()).hexdigest()
        else:
            found = None if files[name].lfs is None else files[name].lfs.sha256
            hashes[name] = found or _hash_of(Path(download(model, name, revision=commit)), 0)
    prepared = _json(small[PREPARED], model) if PREPARED in small else {}
    return Weights(_json(small[CONFIG], model), prepared, _digest(hashes), commit)


def _wanted(names: list[str], model: str) -> list[str]:
    """The config and the weight files, of the better format if there are two."""
    if CONFIG not in names:
        raise JobError(f"feature.model: {model} has no {CONFIG}; save it with save_pretrained()")
    for pattern in FORMATS:
        if found := sorted(name for name in names if Path(name).match(pattern) and "/" not in name):
            return [CONFIG, *found]
    raise JobError(f"feature.model: {model} holds no weights; {' or '.join(FORMATS)} are read")


def _digest(hashes: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()


def _json(path: Path, model: str) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(path.read_bytes())
        return read
    except ValueError as error:
        raise JobError(f"feature.model: {path.name} of {model} is no JSON: {error}") from error


@lru_cache(maxsize=64)
def _hash_of(path: Path, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _downloaded(model: str, sha256: str) -> Path:
    """A copy of an s3:// folder, made once on this machine, however many workers ask for it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "wavmill" / "models"
    cache.mkdir(parents=True, exist_ok=True)
    folder, partial = cache / sha256, cache / f"{sha256}.partial"
    with (cache / f"{sha256}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            if _in_store(model).sha256 != sha256:
                raise Stopped(f"the weights at {model} have changed since the job was planned")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            store = open_store(model)
            for name in _wanted([entry.key for entry in store.list() if "/" not in entry.key], model):
                with store.open(name) as source, (partial / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 24)
            partial.rename(folder)
    return folder


@contextmanager
def _said_by_hub(model: str, revision: str, kind: type[WavmillError]) -> Iterator[None]:
    """What the hub refuses, as an error that says what would be right."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind(
            f"feature.model: {model} is no folder here, and the hub does not give it (revision {revision}): {what}"
        ) from error
