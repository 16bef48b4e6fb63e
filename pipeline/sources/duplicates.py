"""Find clips of a version with the same id, in 8 bytes per clip, and rename those of one object.

When several shards share an object (a large tar that holds a member twice, far apart), each may have a clip with the
same id without knowing. The first keeps the id, the others become rejects. Clips of different objects with the same id
are an error.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.errors import WavmillError
from wavmill.pipeline.formats.clip_ids import second_id
from wavmill.pipeline.protocol.records import Record, StoredRows
from wavmill.pipeline.rows import replace

Renamed = dict[str, dict[str, str]]  # shard -> id that another shard has, too -> its new id


class ClipIds:
    """Hashes of ids, at most ``most`` of them: 0.8 GB for a hundred million."""

    def __init__(self, most: int) -> None:
        self.hashes, self.count = np.empty(most, np.int64), 0

    def add(self, ids: pa.ChunkedArray) -> None:
        end = self.count + len(ids)
        self.hashes[self.count : end] = hashes_of(ids)
        self.count = end

    def repeated(self) -> np.ndarray:
        """The hashes that occurred more than once, sorted. Different ids may have the same hash."""
        known = self.hashes[: self.count]
        known.sort()
        return np.unique(known[1:][known[1:] == known[:-1]])


def hashes_of(ids: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64; the same for the same id within this process."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))


class Place(NamedTuple):
    """The shard and row of a clip."""

    shard: str
    source: str
    done: bool


def renamed(
    where: str, repeated: np.ndarray, records: Iterable[Record], rows: Callable[[StoredRows, str], pa.Table]
) -> Renamed:
    """New ids for clips of one object that several shards have. WavmillError for any other duplicate.

    ``rows(shard, name)``: the columns clip and source of a shard's current data or rejects.
    """
    places: dict[str, list[Place]] = defaultdict(list)
    for record in records:
        for stored in (record.data, record.rejects):
            if stored is not None:
                table = rows(stored, record.shard)
                table = table.filter(pa.array(np.isin(hashes_of(table["clip"]), repeated)))
                for clip, source in zip(table["clip"].to_pylist(), table["source"].to_pylist(), strict=True):
                    places[clip].append(Place(record.shard, source, stored is record.data))
    names: Renamed = defaultdict(dict)
    for clip, (first, *others) in places.items():
        for number, other in enumerate(others, 2):
            if other.source != first.source or other.shard == first.shard:
                raise WavmillError(
                    f"{where}: two clips have the id {clip!r}: {_words(first)}, and {_words(other)}. Nothing was "
                    "published. If the corpus is listed right, this is a bug in how ids are made: please report it"
                )
            names[other.shard][clip] = second_id(clip, number)
    return dict(names)


def _words(place: Place) -> str:
    return f"{'done' if place.done else 'rejected'} in shard {place.shard} (of {place.source})"


def without_renamed(data: pa.Table, names: dict[str, str]) -> pa.Table:
    """Remove the clips of a shard that another shard has, too."""
    return data.filter(pc.invert(pc.is_in(data["clip"], pa.array(sorted(names), pa.string())))) if names else data


def with_renamed(rejects: pa.Table, data: pa.Table | None, names: dict[str, str]) -> pa.Table:
    """Rename the rejects of a shard, and add the clips that another shard has, too, as rejects."""
    ids = rejects["clip"].to_pylist()
    table = replace(rejects, "clip", pa.array([names.get(clip, clip) for clip in ids], pa.string()))
    if data is None:
        return table
    again = data.filter(pc.is_in(data["clip"], pa.array(sorted(names), pa.string())))
    words = "another clip of this object has the same name"
    values = {"stage": "decode", "reason": "duplicate", "message": words}
    columns = [
        pa.array([names[clip] for clip in again["clip"].to_pylist()], pa.string())
        if field.name == "clip"
        else pa.array([values[field.name]] * again.num_rows, pa.string())
        if field.name in values
        else again[field.name].cast(field.type)
        for field in table.schema
    ]
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)])
