"""Reading a training pack: its pieces memory-mapped, where they lie or fetched once per node, and split by hash."""

import hashlib
import json
import mmap
import os
import shutil
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wavmill.pipeline.errors import JobError, Reject, Stopped
from wavmill.pipeline.store.base import Store, join, translate_os_errors
from wavmill.pipeline.store.cache import cache_folder, make_once
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.objects import ahead
from wavmill.pipeline.training.flat_tokens import hashes_of
from wavmill.pipeline.training.pack_build import PACK, PackDescription, PackedPart, Split, folder_of

DTYPES = {"U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64, "U64": np.uint64}  # of safetensors


def open_pack(store: Store, fingerprint: str, cache: Path | None = None) -> "Pack":
    """The pack that ``make_pack`` built in a store. From a bucket it is fetched to ``cache`` once per node.

    ``cache`` is ``cache_folder()`` by default.
    """
    top = folder_of(fingerprint)
    try:
        pack = PackDescription.read(store.read(f"{top}/{PACK}"))
    except FileNotFoundError as error:
        raise JobError(f"there is no pack at {join(store.url, top)}") from error
    except ValueError as error:
        raise Stopped(f"{join(store.url, top, PACK)} is damaged: {error}") from error
    if isinstance(store, Folder):
        return Pack(Path(os.fsdecode(store.path(top))), pack)
    return Pack(_fetched(store, top, pack, (cache or cache_folder()) / "packs" / fingerprint), pack)


class Piece(NamedTuple):
    """The arrays of one piece, as flat_tokens.py describes them, and the names of its labels."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    names: list[str]


class Pack:
    """Rows of codes from several datasets. A row is a view of a memory-mapped file.

    A pickled pack is only its folder, which is mapped again when it is unpickled.
    """

    def __init__(self, folder: Path, described: PackDescription) -> None:
        self.folder, self.described = folder, described
        self.rows, self.vocabulary = described.rows, described.vocabulary
        self.labels = self.vocabulary.labels
        self.pieces = [_mapped(folder / piece.name, piece.bytes) for piece in described.pieces]
        counts = [piece.rows for piece in described.pieces]
        self._starts: list[int] = np.cumsum([0, *counts])[:-1].tolist()

    def __reduce__(self) -> tuple[type["Pack"], tuple[Path, PackDescription]]:
        return Pack, (self.folder, self.described)

    def row(self, i: int) -> np.ndarray:
        """The codes of row i, (T,) or flattened (T * Q,), uint16 or uint32, a read-only view."""
        if not 0 <= i < self.rows:
            raise IndexError(f"row {i} of {self.rows}")
        at = bisect_right(self._starts, i) - 1
        piece, i = self.pieces[at], i - self._starts[at]
        return piece.tokens[piece.offsets[i] : piece.offsets[i + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many codes each row has, (rows,) int32."""
        return np.concatenate([np.diff(piece.offsets).astype(np.int32) for piece in self.pieces])

    @cached_property
    def label_of(self) -> np.ndarray:
        """The number of each row's label in ``labels``, -1 = none, (rows,) int32."""
        number_of = {name: number for number, name in enumerate(self.labels)}
        tables = [np.array([*map(number_of.get, piece.names), -1], np.int32) for piece in self.pieces]
        return np.concatenate([table[piece.labels] for table, piece in zip(tables, self.pieces, strict=True)])

    @cached_property
    def dataset_of(self) -> np.ndarray:
        """The number of the dataset each row is from, (rows,) int16."""
        pieces = self.described.pieces
        return np.repeat(np.array([one.dataset for one in pieces], np.int16), [one.rows for one in pieces])

    def split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """The rows to train on and the rows to validate with, rising, int64 both."""
        by = self.described.by
        if split.by != by:
            raise JobError(f"pack.split.by is {split.by}; this pack was made by {by}")
        limit, held = np.uint64(int(split.valid * 2**64)), hashes_of(list(split.hold))
        sides = [np.isin(piece.split, held) if split.hold else piece.split < limit for piece in self.pieces]
        if split.hold:
            there = np.concatenate([np.unique(one.split[side]) for one, side in zip(self.pieces, sides, strict=True)])
            missing = [name for name, found in zip(split.hold, np.isin(held, there), strict=True) if not found]
            if missing:
                raise JobError(f"pack.split.hold: no clip has the {by} {', '.join(map(repr, missing))}")
        side = np.concatenate(sides)
        train, valid = np.flatnonzero(~side), np.flatnonzero(side)
        if not len(train):
            raise JobError(
                f"pack.split: every {by} falls in the validation; nothing is left to train on: lower "
                "pack.split.valid, or split by another column with pack.split.by"
            )
        if split.valid and not len(valid):
            raise JobError(
                f"no {by} falls in the validation {100 * split.valid:g} %: "
                "raise pack.split.valid, name some with pack.split.hold, or split by another column with pack.split.by"
            )
        return train, valid


def _mapped(path: Path, size: int) -> Piece:
    """A safetensors file as views of its memory map: 8 bytes of header length, a JSON header, then the arrays."""
    with translate_os_errors(str(path.parent)):
        try:
            with path.open("rb") as file:
                there = os.fstat(file.fileno()).st_size
                if there != size:  # to read beyond the end of a mapped file is a crash, not an error
                    raise Stopped(f"{path} is damaged: it has {there:,} bytes, and {PACK} says {size:,}")
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise Stopped(f"{path} is gone, and {PACK} says it was written") from error
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    names = json.loads(header.pop("__metadata__")["wavmill"])["labels"]
    arrays = {
        name: np.frombuffer(data, DTYPES[one["dtype"]], one["shape"][0], begin + one["data_offsets"][0])
        for name, one in header.items()
    }
    return Piece(**arrays, names=names)


def _fetched(store: Store, top: str, pack: PackDescription, folder: Path) -> Path:
    """The pieces as files of this node. The first process fetches a piece, the others wait for it."""

    def fetch(piece: PackedPart) -> None:
        key = f"{top}/{piece.name}"

        def copy(partial: Path) -> None:
            try:
                with store.open(key) as source, partial.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 22)
            except (FileNotFoundError, Reject) as error:
                raise Stopped(f"{join(store.url, key)} is gone, and {PACK} says it was written") from error
            with partial.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != piece.sha256:
                raise Stopped(
                    f"{join(store.url, key)} is damaged: its hash is not the one in {PACK}; "
                    f"remove {join(store.url, top)} and run the same command again, to pack anew"
                )

        make_once(folder / piece.name, copy, lambda path: path.exists() and path.stat().st_size == piece.bytes)

    for _ in ahead(fetch, pack.pieces):
        pass
    return folder
