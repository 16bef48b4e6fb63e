"""A published dataset as the source of a job: any of its columns is used without being computed again."""

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.choice import Address, InRecipeAs
from wavmill.pipeline.protocol.left_out import LeftOut
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.rows import ERROR, VIDEO
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Entry, Store, join
from wavmill.pipeline.store.objects import SCHEMA
from wavmill.pipeline.store.parquet import open_parquet

PARTS_LOOKED_AT = 8


class Dataset(Source):
    """The rows of a published dataset; ``column`` is the column that the job continues with.

    ``from`` is a dataset's address, the newest version or one (``.../v1``). The job is tied to that version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    kind: Literal["dataset"] = "dataset"
    origin: Annotated[str, Address] = Field(alias="from")
    column: Literal["feature", "token"]
    fingerprint: Annotated[str, InRecipeAs("parent")] = "auto"

    @property
    def gives(self) -> str:
        return self.column

    @property
    def unit(self) -> str:
        return "row groups"

    def carried(self) -> tuple[str, ...]:
        return tuple(find_dataset(self.origin).carry)

    def place_of(self, path: str) -> tuple[Store, str]:
        return open_store(find_dataset(self.origin).address), path

    def check_here(self) -> None:
        """Parts are immutable, and the plan has their hashes instead of times: only sizes are checked."""
        for part in find_dataset(self.origin).parts[:PARTS_LOOKED_AT]:
            store, key = self.place_of(part.path)
            entry = store.stat(key)
            if entry is None or entry.size != part.bytes:
                raise JobError(f"source.from: {join(store.url, key)} is not there as it was published")

    def objects(self, clip: Clip, left_out: LeftOut) -> Iterator[pa.Table]:
        dataset = find_dataset(self.origin)
        rows = []
        for part in dataset.parts:
            rows += [(Entry(part.path, part.bytes, part.sha256), group, group + 1) for group in range(part.row_groups)]
        columns = [[row[0].key for row in rows], [row[0].size for row in rows], [row[0].stamp for row in rows]]
        yield pa.table([*columns, [row[1] for row in rows], [row[2] for row in rows]], schema=SCHEMA)

    def seconds(self, objects: pa.Table) -> np.ndarray:
        store, rows = open_store(find_dataset(self.origin).address), objects.select(["path", "lo"]).to_pylist()
        known: dict[str, list[float]] = {}
        for path in {row["path"] for row in rows}:
            with open_parquet(store, path) as part:
                known[path] = [
                    part.read_row_groups([group], columns=["seconds"])["seconds"].to_numpy().sum()
                    for group in range(part.num_row_groups)
                ]
        return np.array([known[row["path"]][row["lo"]] for row in rows], float)

    def read(self, objects: pa.Table, clip: Clip, rate_hz: int) -> pa.Table:
        dataset = find_dataset(self.origin)
        store, tables = open_store(dataset.address), []
        seen = [field.name for field in VIDEO if field.name in dataset.columns]
        facts = ["start_s", "seconds", "peak", "rms_db", *seen]
        columns = ["clip", "source", "label", *dataset.carry, *facts, self.column]
        for row in objects.to_pylist():
            with open_parquet(store, row["path"]) as part:
                tables.append(part.read_row_groups([row["lo"]], columns=columns))
        table = pa.concat_tables(tables).combine_chunks()
        for field in ERROR:
            table = table.append_column(field, pa.array([""] * table.num_rows, field.type))
        return table
