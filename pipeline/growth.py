"""When a corpus grew: which outcomes of an earlier plan a later one replaces."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.parquet import parquet_in
from pipeline.plan import Plan, read_objects
from pipeline.store import Store


def superseded(
    store: Store, plans: list[Plan], choice: dict[str, Any], records: list[dict[str, Any]]
) -> dict[str, Any]:
    """For each shard of an earlier plan, the sources and clips of which a later plan has a newer outcome.

    A source counts as newer when it came back with another stamp or was retried, a clip when its metadata changed.
    -> shard key: (sources, clips) as Arrow arrays; shards of which nothing is superseded are left out.
    """
    if len(plans) == 1:
        return {}
    tables = [read_objects(store, plan).select(["path", "stamp"]) for plan in plans]
    stamps = [dict(zip(t["path"].to_pylist(), t["stamp"].to_pylist(), strict=True)) for t in tables]
    where = {shard: plan for plan, shard, _ in choice["shards"]}
    sources: list[set[str]] = [set() for _ in plans]
    again: list[bool] = [False for _ in plans]
    for early in range(len(plans)):
        for late in range(early + 1, len(plans)):
            both = stamps[early].keys() & stamps[late].keys()
            retried = bool(plans[late].said.get("retry"))  # whole objects, whatever clips they fall into now
            changed = {path for path in both if retried or stamps[early][path] != stamps[late][path]}
            sources[early] |= changed
            again[early] |= len(changed) < len(both)
    clips: list[set[str]] = [set() for _ in plans]
    if any(again):
        for record in records:
            for what in ("data", "rejects"):
                if record[what] and where[record["shard"]] > 1:
                    with parquet_in(store, record[what]["key"]) as file:
                        named = file.read(columns=["clip"])["clip"].to_pylist()
                    for early in range(where[record["shard"]] - 1):
                        clips[early] |= set(named)
    return {
        shard: (pa.array(sorted(sources[plan - 1]), pa.string()), pa.array(sorted(clips[plan - 1]), pa.string()))
        for shard, plan in where.items()
        if sources[plan - 1] or clips[plan - 1]
    }


def kept(table: pa.Table, gone: tuple[pa.Array, pa.Array] | None) -> pa.Table:
    """The rows of a shard's table that no later plan replaces."""
    if gone is None:
        return table
    return table.filter(pc.invert(pc.or_(pc.is_in(table["source"], gone[0]), pc.is_in(table["clip"], gone[1]))))
