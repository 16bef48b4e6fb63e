"""The headers of weight files: what a checkpoint's files hold, by name and shape, without reading the weights."""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from wavmill.model.encoder_weights import Shapes

MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
SINGLE = ("model.safetensors", "pytorch_model.bin")  # the names that transformers loads, in its order
INDEX = ".index.json"
POINTER = b"version https://git-lfs"
PICKLE, ZIP = b"\x80", b"PK\x03\x04"  # how files of torch.save begin, before and since torch 1.6
FLOATS = {"F64", "F32", "F16", "BF16"}


def indices(names: Sequence[str]) -> list[str]:
    """Of the files of a checkpoint, those that say which shard holds which weight."""
    return [f"{single}{INDEX}" for single in SINGLE if f"{single}{INDEX}" in names]


def loaded_files(names: Sequence[str], read: Callable[[str], bytes]) -> list[str]:
    """The weight files that transformers loads of a checkpoint with these files; ``read`` gives a file's bytes.

    ValueError when there are none by a name that it loads, or an index names a file that is not there.
    """
    for single in SINGLE:
        if single in names:
            return [single]
        if (index := f"{single}{INDEX}") in names:
            try:
                shards = sorted({*json.loads(read(index))["weight_map"].values()})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{index} is damaged: it has no weight_map") from error
            if missing := [shard for shard in shards if shard not in names]:
                raise ValueError(
                    f"{index} names {missing[0]}, and there is no such file ({len(missing):,} are missing)"
                )
            return shards
    suffixes = tuple(Path(single).suffix for single in SINGLE)
    others = ", ".join(sorted(name for name in names if name.endswith(suffixes) and "/" not in name)[:3])
    raise ValueError(
        f"it holds {others}, and weights are loaded from {' or '.join(SINGLE)}, or from shards with their {INDEX[1:]}"
    )


def shapes_in(name: str, file: BinaryIO, size: int, whole: bool = True) -> Shapes | None:
    """The weights in a file of ``size`` bytes, by name; None for a .bin, which is only checked for being one.

    ``whole``: the file can be read to its end; else only its beginning is there. ValueError, with the file's name, when
    it is a git-lfs pointer, was cut, or is something else.
    """
    begins = file.read(len(POINTER))
    if begins.startswith(POINTER):
        raise ValueError(f"{name} is a git-lfs pointer, and not the weights: run 'git lfs pull' where it comes from")
    if begins[:1] == b"<":
        raise ValueError(f"{name} is a web page, and not the weights")
    if Path(name).suffix == ".safetensors":
        return _safetensors(name, begins, file, size)
    if begins.startswith(ZIP):
        if whole:
            _check_zip(name, file)
    elif not begins.startswith(PICKLE):
        raise ValueError(f"{name} is no file of torch.save: it begins with {begins[:8]!r}")
    return None


def _safetensors(name: str, begins: bytes, file: BinaryIO, size: int) -> Shapes:
    """8 bytes of header length, a JSON header, the numbers."""
    length = int.from_bytes(begins[:8], "little")
    if len(begins) < 8 or length > MOST_HEADER_BYTES:
        raise ValueError(f"{name} is no safetensors file, or was cut: it has {size:,} bytes")
    header = (begins[8:] + file.read(max(0, length - len(begins) + 8)))[:length]
    if len(header) < length:
        raise ValueError(f"{name} was cut: it has {size:,} bytes, and its header alone {8 + length:,}")
    try:
        told: dict[str, Any] = json.loads(header)
        told.pop("__metadata__", None)
        shapes = {one: tuple(int(axis) for axis in facts["shape"]) for one, facts in told.items()}
        end = max((int(facts["data_offsets"][1]) for facts in told.values()), default=0)
        numbers = {one: str(facts["dtype"]) for one, facts in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is damaged: its header cannot be read") from error
    if size and size != 8 + length + end:  # the hub may not know a size
        what = "was cut" if size < 8 + length + end else "is damaged"
        raise ValueError(f"{name} {what}: it has {size:,} bytes, and by its header {8 + length + end:,}")
    others = (one for one, dtype in numbers.items() if dtype not in FLOATS and one.endswith((".weight", ".bias")))
    if other := next(others, ""):
        raise ValueError(f"{name} holds {other} as {numbers[other]}; quantized weights are not read")
    return shapes


def _check_zip(name: str, file: BinaryIO) -> None:
    """The directory of a zip file stands at its end: a file that was cut has none."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"{name} was cut or is damaged: its end, where its directory stands, is not there") from error
    if not any(one.endswith("/data.pkl") for one in names):
        raise ValueError(f"{name} is a zip file, and not one of torch.save")
