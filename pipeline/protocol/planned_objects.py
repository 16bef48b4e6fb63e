"""Look up the objects of stored plans by path, in bounded pieces, and find those that a later listing replaces.

In memory are only a few row groups of a plan and, where its objects carry clip names (manifests), 16 bytes per name.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.store.base import Store
from wavmill.pipeline.store.parquet import ParquetFile, stop_on_damage

CACHED_GROUPS = 4  # row groups in memory, of each plan
ROW = "row"  # the column with the row of an object in its plan


class PlannedObjects:
    """The objects of one plan, in order of their paths. Safe to use from several threads."""

    def __init__(self, store: Store, key: str) -> None:
        self.where = f"{store.url}/{key}"
        self._lock = threading.Lock()
        self._cached: dict[int, pa.Table] = {}
        self._names: ClipNames | None = None
        self.source = store.open(key)
        with stop_on_damage(self.where):
            self.file = ParquetFile(self.source)
            at = self.file.schema.get_field_index("path")
            groups = [self.file.metadata.row_group(group) for group in range(self.file.num_row_groups)]
            found = [group.column(at).statistics for group in groups]
        spans = [(one.min, one.max) if one and one.has_min_max else ("", "\U0010ffff") for one in found]
        self.first, self.last = np.array(spans, object).reshape(-1, 2).T
        self.starts = np.cumsum([0, *(group.num_rows for group in groups)])

    def __enter__(self) -> "PlannedObjects":
        return self

    def __exit__(self, *error: object) -> None:
        self.source.close()

    @property
    def has_names(self) -> bool:
        """Whether objects carry the name of their clip, as the rows of a manifest do."""
        return "clip" in self.file.schema.names

    def beside(self, objects: pa.Table) -> pa.Table:
        """The objects of this plan with one of these sorted paths; the column ``row`` is their row in the plan."""
        if not objects.num_rows:
            return self.empty()
        first, last = objects["path"][0].as_py(), objects["path"][-1].as_py()
        paths = pc.unique(objects["path"])
        near = np.flatnonzero((self.first <= last) & (self.last >= first))
        found = [(table := self._group(int(group))).filter(pc.is_in(table["path"], paths)) for group in near]
        return pa.concat_tables([self.empty(), *found])

    def between(self, row_lo: int, row_hi: int) -> pa.Table:
        """Rows [row_lo, row_hi) of the plan, with the column ``row``."""
        groups = range(*np.searchsorted(self.starts, [row_lo, row_hi - 1], side="right") - [1, 0])
        table = pa.concat_tables([self.empty(), *map(self._group, groups)])
        return table.slice(row_lo - int(self.starts[groups[0]]), row_hi - row_lo)

    def pieces(self) -> Iterator[pa.Table]:
        """All objects, a row group at a time."""
        yield from map(self._group, range(self.file.num_row_groups))

    def names(self) -> "ClipNames":
        """The clip names of this plan; read on first use."""
        with self._lock:
            if self._names is None:
                with stop_on_damage(self.where):
                    self._names = ClipNames(
                        batch.column(0).to_pylist() for batch in self.file.iter_batches(columns=["clip"])
                    )
            return self._names

    def _group(self, group: int) -> pa.Table:
        with self._lock:
            if group not in self._cached:
                while len(self._cached) >= CACHED_GROUPS:
                    del self._cached[next(iter(self._cached))]
                with stop_on_damage(self.where):
                    table = self.file.read_row_groups([group]).combine_chunks()
                rows = np.arange(self.starts[group], self.starts[group + 1])
                self._cached[group] = table.append_column(ROW, pa.array(rows, pa.int64()))
            return self._cached[group]

    def empty(self) -> pa.Table:
        """A table without rows, with the columns of the objects."""
        return self.file.schema.remove_metadata().empty_table().append_column(ROW, pa.array([], pa.int64()))


class ClipNames:
    """A set of names, 16 bytes each: a wrong answer would need equal 128-bit hashes."""

    def __init__(self, pieces: Iterator[list[str]]) -> None:
        hashes = np.concatenate([np.zeros((0, 2), np.uint64), *map(_hashes, pieces)])  # (n, 2)
        self.hashes = hashes[np.argsort(hashes[:, 0], kind="stable")]

    def among(self, names: Sequence[str]) -> list[str]:
        """The names that are in the set."""
        if not len(self.hashes):
            return []
        wanted = _hashes(names)
        at = np.searchsorted(self.hashes[:, 0], wanted[:, 0]).clip(max=len(self.hashes) - 1)
        there = (self.hashes[at] == wanted).all(axis=1)
        return [names[int(i)] for i in np.flatnonzero(there)]


def _hashes(names: Sequence[str]) -> np.ndarray:
    """(n, 2) uint64: the BLAKE2b of each name."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


class Replaced(NamedTuple):
    """What later listings replace: objects by path, rows of a manifest by the name of their clip."""

    paths: set[str]
    names: set[str]

    def holds(self, row: Mapping[str, object]) -> bool:
        return row["path"] in self.paths or row.get("clip") in self.names


def replaced_by(later: Sequence[PlannedObjects], objects: pa.Table) -> Replaced:
    """A mask of the sorted objects of a plan that later listings replace.

    An object without a clip name is replaced when its path is listed again: that happens only when something about it
    changed. A row of a manifest is replaced when its name is listed again, wherever its sound lies now, and with all
    other rows of its path when the sound itself changed. A missing sound does not replace the others.
    """
    paths: set[str] = set()
    names: set[str] = set()
    for listing in later:
        found = listing.beside(objects)
        if not listing.has_names:
            paths |= set(found["path"].to_pylist())
            continue
        names |= set(listing.names().among(objects["clip"].to_pylist()))
        if found.num_rows:
            present = found.filter(pc.greater_equal(found["size"], 0))
            now = dict(zip(present["path"].to_pylist(), present["stamp"].to_pylist(), strict=True))
            for row in objects.select(["path", "stamp", "size", "clip"]).to_pylist():
                if row["size"] < 0 and row["path"] in now:
                    names.add(row["clip"])  # it came
                elif row["size"] >= 0 and now.get(row["path"], row["stamp"]) != row["stamp"]:
                    paths.add(row["path"])
    return Replaced(paths, names)
