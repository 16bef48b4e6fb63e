"""The current rows of a version, shard by shard: committed rows, checked by hash, without those superseded."""

from collections.abc import Sequence

import pyarrow as pa

from wavmill.pipeline.errors import Stopped, WavmillError
from wavmill.pipeline.protocol.records import Record, StoredRows
from wavmill.pipeline.protocol.superseded import Supersession, without_superseded
from wavmill.pipeline.rows import rejects
from wavmill.pipeline.sources.duplicates import ClipIds, Renamed, renamed, with_renamed, without_renamed
from wavmill.pipeline.store.base import Store, read_checked
from wavmill.pipeline.store.parquet import open_parquet, table_of


class CurrentRows:
    """The current rows of the chosen attempts. ``ids``: those published so far."""

    def __init__(self, store: Store, records: list[Record], supersession: Supersession, carry: Sequence[str]) -> None:
        self.store, self.records, self.supersession, self.carry = store, records, supersession, carry
        self.renamed: Renamed = {}
        self.ids = self._no_ids()

    def _no_ids(self) -> ClipIds:
        return ClipIds(sum(record.done + record.rejected for record in self.records))

    def is_complete(self, record: Record) -> bool:
        """Whether all rows of a shard are current and keep their ids."""
        return record.shard not in self.renamed and self.supersession.superseded(record.shard) is None

    def data(self, data: StoredRows, shard: str) -> pa.Table:
        """The current clips of a shard; ``data`` are all its clips."""
        return without_renamed(self._read(data, shard), self.renamed.get(shard, {}))

    def rejects(self, record: Record) -> pa.Table:
        """The current rejects of a shard."""
        names = self.renamed.get(record.shard, {})
        table = self._read(record.rejects, record.shard) if record.rejects else rejects(self.carry).empty_table()
        data = self._read(record.data, record.shard) if names and record.data else None
        return with_renamed(table, data, names) if names else table

    def ids_in(self, stored: StoredRows, shard: str) -> pa.Table:
        """The columns clip and source of a shard's current data or rejects; no other column is read."""
        with open_parquet(self.store, stored.key) as file:
            table = file.read(columns=["clip", "source"])
        return without_superseded(table, self.supersession.superseded(shard))

    def among(self, record: Record, named: list[tuple[str, str]]) -> list[str]:
        """Of [clip, source] pairs of a shard's data, the clips that are current."""
        columns = [pa.array([pair[at] for pair in named], pa.string()) for at in (0, 1)]
        table = pa.table(columns, names=["clip", "source"])
        result: list[str] = without_superseded(table, self.supersession.superseded(record.shard))["clip"].to_pylist()
        return result

    def find_duplicates(self, where: str) -> bool:
        """Find clips with the same id. True when some were renamed, so that everything is to be written again.

        WavmillError when they are of different objects; its message begins with ``where``.
        """
        repeated, self.ids = self.ids.repeated(), self._no_ids()
        if len(repeated) and self.renamed:
            raise WavmillError(f"{where}: clips that another one of their object has the name of cannot be renamed")
        if len(repeated):
            self.renamed = renamed(where, repeated, self.records, self.ids_in)
        return bool(self.renamed)

    def _read(self, stored: StoredRows, shard: str) -> pa.Table:
        at = f"{self.store.url}/{stored.key}"
        other = Stopped(f"{at} is damaged: its hash is not the one in its record")
        try:
            data = read_checked(self.store, stored.key, stored.sha256, other)
        except FileNotFoundError as error:
            raise Stopped(f"{at} is gone, and its record says it was written") from error
        return without_superseded(table_of(data), self.supersession.superseded(shard))
