"""The rows of a version, shard by shard: what was committed, checked against its hash, without what does not stand."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.duplicates import ClipIds, Renamed, renamed, with_renamed, without_renamed
from pipeline.errors import Stopped, WavmillError
from pipeline.growth import Growth, kept
from pipeline.parquet import parquet_in
from pipeline.rows import rejects
from pipeline.store import Store, sha256


class Standing:
    """The records of the chosen attempts, and the rows that stand of each. ``ids``: of what was published so far."""

    def __init__(self, store: Store, records: list[dict[str, Any]], growth: Growth, carry: Sequence[str]) -> None:
        self.store, self.records, self.growth, self.carry = store, records, growth, carry
        self.renamed: Renamed = {}
        self.ids = self._no_ids()

    def _no_ids(self) -> ClipIds:
        return ClipIds(sum(record["done"] + record["rejected"] for record in self.records))

    def is_whole(self, record: dict[str, Any]) -> bool:
        """Whether all rows of a shard stand as they are."""
        return record["shard"] not in self.renamed and self.growth.gone(record["shard"]) is None

    def data(self, record: dict[str, Any]) -> pa.Table:
        """The clips of a shard."""
        return without_renamed(self._read(record, "data"), self.renamed.get(record["shard"], {}))

    def rejects(self, record: dict[str, Any]) -> pa.Table:
        """The rejects of a shard."""
        names = self.renamed.get(record["shard"], {})
        table = self._read(record, "rejects") if record["rejects"] else rejects(self.carry).empty_table()
        return with_renamed(table, self._read(record, "data") if record["data"] else None, names) if names else table

    def columns(self, record: dict[str, Any], what: str, names: list[str]) -> pa.Table:
        """Some columns of what stands of a shard's data or rejects, without its others being read."""
        with parquet_in(self.store, record[what]["key"]) as file:
            table = file.read(columns=["clip", "source"])
        return kept(table, self.growth.gone(record["shard"])).select(names)

    def among(self, record: dict[str, Any], named: list[list[str]]) -> list[str]:
        """The clips that stand of some [clip, source] of a shard's data."""
        columns = [pa.array([pair[at] for pair in named], pa.string()) for at in (0, 1)]
        table = pa.table(columns, names=["clip", "source"])
        return kept(table, self.growth.gone(record["shard"]))["clip"].to_pylist()

    def find_duplicates(self, where: str) -> bool:
        """Look whether two clips have one id. True when some were renamed, and all is to be written again.

        WavmillError for those of different objects; ``where`` is what its message begins with.
        """
        repeated, self.ids = self.ids.repeated(), self._no_ids()
        if len(repeated) and self.renamed:
            raise WavmillError(f"{where}: clips that another one of their object has the name of cannot be renamed")
        if len(repeated):
            both = ["clip", "source"]
            self.renamed = renamed(where, repeated, self.records, lambda record, what: self.columns(record, what, both))
        return bool(self.renamed)

    def _read(self, record: dict[str, Any], what: str) -> pa.Table:
        key = record[what]["key"]
        try:
            data = self.store.read(key)
        except FileNotFoundError as error:
            raise Stopped(f"{self.store.url}/{key} is gone, and its record says it was written") from error
        if sha256(data) != record[what]["sha256"]:
            raise Stopped(f"{self.store.url}/{key} is damaged: its hash is not the one in its record")
        return kept(pq.read_table(pa.BufferReader(data)), self.growth.gone(record["shard"]))
