"""Pretrained weights: in a folder, in an s3:// folder, or on the Hugging Face hub. What they are, and how they come.

What identifies a model is the sha256 of its config.json and of its weight files, wherever they lie; on S3, where that
would mean to read them all, their sizes and etags stand for them.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from wavmill.model.encoder_weights import Shapes, differences
from wavmill.pipeline.errors import JobError, Stopped, WavmillError
from wavmill.pipeline.features.input_preparation import FILES, prepared_of
from wavmill.pipeline.features.weight_headers import INDEX, MOST_HEADER_BYTES, SINGLE, indices, loaded_files, shapes_in
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.cache import cache_folder, make_once

CONFIG = "config.json"
HEAD_BYTES = 1 << 20  # of a weight file on the hub, where its header stands
Opened = Callable[[str], tuple[BinaryIO, int, bool]]  # a name -> the file, its size in bytes, whether all is there
FORMATS = ("*.safetensors", "pytorch_model*.bin")  # in order of preference; a .bin is read with weights_only


class Weights(NamedTuple):
    """What is known of a model before it is loaded."""

    config: dict[str, Any]
    prepared: dict[str, Any] | None  # the options of its feature extractor; None where no file says any
    sha256: str
    revision: str  # the commit on the hub, else ""
    shapes: Shapes | None  # of its weights, by name; None where a .bin holds them


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


def check_shapes(weights: Weights, model: str) -> None:
    """JobError, in one line, when the weights are not those of the net that config.json describes.

    Those in a .bin are compared when they are loaded: their names stand in a pickle.
    """
    if weights.shapes is not None and (problems := differences(weights.shapes, weights.config)):
        raise JobError(f"feature.model: {model} does not fit its {CONFIG}: {'; '.join(problems)}")


def fetched(model: str, weights_sha256: str, revision: str = "") -> Path:
    """The folder of this machine with the weights. Stopped when they are others than the job was planned with."""
    if is_folder(model):
        folder = Path(model).expanduser()
        there = _sha256_in(folder, model)
    elif model.startswith("s3://"):
        folder, there = _downloaded(model, weights_sha256), weights_sha256
    else:
        from huggingface_hub import snapshot_download

        with _said_by_hub(model, revision, Stopped):
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=[CONFIG, *FORMATS, f"*{INDEX}"]))
        there = _sha256_in(folder, model)
    if there != weights_sha256:
        raise Stopped(f"the weights of {model} here are {there[:12]}, the job was planned with {weights_sha256[:12]}")
    return folder


def _sha256_in(folder: Path, model: str) -> str:
    if not folder.is_dir():
        raise JobError(f"feature.model: there is no folder {model}")
    names = _wanted([path.name for path in folder.iterdir()], model)
    return _digest({name: _hash_of(folder / name, (folder / name).stat().st_mtime_ns) for name in names})


def _in_folder(folder: Path, model: str) -> Weights:
    """What is known of a model in a folder; whether the headers of its files are sound, too."""
    digest, names = _sha256_in(folder, model), [path.name for path in folder.iterdir()]
    prepared = prepared_of({name: (folder / name).read_bytes() for name in FILES if name in names}, model)
    shapes = _shapes(names, lambda name: (folder / name).read_bytes(), lambda name: _opened(folder / name), model)
    return Weights(_json((folder / CONFIG).read_bytes(), model), prepared, digest, "", shapes)


def _in_store(model: str) -> Weights:
    store = open_store(model)
    there = {entry.key: entry for entry in store.list() if "/" not in entry.key}
    hashes = {name: f"{there[name].size}:{there[name].stamp}" for name in _wanted(list(there), model)}
    prepared = prepared_of({name: store.read(name) for name in FILES if name in there}, model)
    shapes = _shapes(list(there), store.read, lambda name: (store.open(name), there[name].size, True), model)
    return Weights(_json(store.read(CONFIG), model), prepared, _digest(hashes), "", shapes)


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

    def read(name: str) -> bytes:
        return Path(download(model, name, revision=commit)).read_bytes()

    for name in _wanted(list(files), model):
        if name == CONFIG:
            hashes[name] = hashlib.sha256(read(name)).hexdigest()
        else:
            found = None if files[name].lfs is None else files[name].lfs.sha256
            hashes[name] = found or _hash_of(Path(download(model, name, revision=commit)), 0)
    prepared = prepared_of({name: read(name) for name in FILES if name in files}, model)
    shapes = _shapes(list(files), read, lambda name: _on_hub_opened(model, name, commit, files[name].size or 0), model)
    return Weights(_json(read(CONFIG), model), prepared, _digest(hashes), commit, shapes)


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


def _json(config: bytes, model: str) -> dict[str, Any]:
    try:
        read = json.loads(config)
        if not isinstance(read, dict):
            raise ValueError("it holds no object")
    except ValueError as error:
        raise JobError(f"feature.model: {CONFIG} of {model} is no JSON: {error}") from error
    return read


def _shapes(names: list[str], read: Callable[[str], bytes], opened: Opened, model: str) -> Shapes | None:
    """The weights in the files that would be loaded, from their headers. JobError when a file is not what it should be.

    ``read`` gives a small file's bytes, ``opened`` a weight file and its size.
    """
    found: Shapes | None = {}
    wanted = _wanted(names, model)
    try:
        files = loaded_files(names, read)
        if other := [name for name in files if name not in wanted]:
            beside = f"{other[0]} would be loaded, and {wanted[1]} lies beside it"
            raise ValueError(f"{beside}; remove the one that is not meant")
        for name in files:
            file, size, whole = opened(name)
            with file:
                shapes = shapes_in(name, file, size, whole)
            found = None if shapes is None or found is None else found | shapes
    except ValueError as error:
        raise JobError(f"feature.model: {model}: {error}") from error
    return found


def _opened(path: Path) -> tuple[BinaryIO, int, bool]:
    return path.open("rb"), path.stat().st_size, True


def _on_hub_opened(model: str, name: str, commit: str, size: int) -> tuple[BinaryIO, int, bool]:
    """The beginning of a file on the hub, with its header; or the file itself, if it was fetched before."""
    from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if isinstance(cached := try_to_load_from_cache(model, name, revision=commit), str):
        return _opened(Path(cached))
    begins, wanted = b"", HEAD_BYTES
    while len(begins) < wanted:
        headers = {**build_hf_headers(), "Range": f"bytes=0-{wanted - 1}"}
        with get_session().stream("GET", hf_hub_url(model, name, revision=commit), headers=headers) as answer:
            hf_raise_for_status(answer)
            begins = b""
            for some in answer.iter_bytes(1 << 16):  # a server without ranges sends all of it
                begins += some
                if len(begins) >= wanted:
                    break
        length = 8 + int.from_bytes(begins[:8], "little")
        if not name.endswith(".safetensors") or len(begins) < wanted or length > MOST_HEADER_BYTES:
            break
        wanted = max(wanted, length)
    return io.BytesIO(begins), size, len(begins) == size


@lru_cache(maxsize=64)
def _hash_of(path: Path, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _downloaded(model: str, sha256: str) -> Path:
    """A copy of an s3:// folder, made once on this machine, however many workers ask for it."""

    def copy(partial: Path) -> None:
        if _in_store(model).sha256 != sha256:
            raise Stopped(f"the weights at {model} have changed since the job was planned")
        partial.mkdir()
        store = open_store(model)
        there = [entry.key for entry in store.list() if "/" not in entry.key]
        for name in [*_wanted(there, model), *indices(there)]:
            with store.open(name) as source, (partial / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 24)

    return make_once(cache_folder() / "models" / sha256, copy, _whole)


def _whole(folder: Path) -> bool:
    """Whether a copy has what is needed to load it; earlier versions left the index of shards behind."""
    return any((folder / f"{single}{end}").is_file() for single in SINGLE for end in ("", INDEX))


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
