"""What is wrong with a published dataset, told by a reader of JSON and Parquet who knows the inputs, and no wavmill."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def problems(store: Path, name: str, inputs: Iterable[str]) -> list[str]:
    """Everything wrong with version 1 of a dataset and with the records behind it; [] when it is whole."""
    top = store / name / "v1"
    said = json.loads((top / "dataset.json").read_bytes())
    done, rejected = rows_of(top, said), pq.read_table(top / said["rejects"]["path"])
    wrong = [*_inputs(done, rejected, inputs), *_sums(top, said, done, rejected)]
    records = {}
    for path in sorted((store / "_mill" / "done").rglob("*.json")):
        record = json.loads(path.read_bytes())
        records[record["shard"], record["attempt"]] = record
        wrong += _record(store, path, record)
    return [*wrong, *_choice(store, name, said, records)]


def rows_of(top: Path, said: dict[str, Any]) -> pa.Table:
    return pa.concat_tables([pq.read_table(top / part["path"]) for part in said["parts"]])


def rows_hash(store: Path, name: str) -> str:
    """A hash of all published values, clip by clip in the order of their names, whatever file they lie in."""
    top = store / name / "v1"
    said = json.loads((top / "dataset.json").read_bytes())
    hashed = hashlib.sha256()
    for table in (rows_of(top, said), pq.read_table(top / said["rejects"]["path"])):
        table = table.sort_by("clip").combine_chunks()
        hashed.update(str(table.schema).encode())
        for column in table.columns:
            hashed.update(_plain(column).tobytes() if len(column) else b"")
            hashed.update(repr(_lengths(column)).encode())
    return hashed.hexdigest()


def _plain(column: pa.ChunkedArray) -> Any:
    """The values of a column, lists opened."""
    values = column.combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return (
        memoryview("\x00".join(values.to_pylist()).encode()) if pa.types.is_string(values.type) else values.to_numpy()
    )


def _lengths(column: pa.ChunkedArray) -> list[int]:
    return column.combine_chunks().value_lengths().to_pylist() if pa.types.is_list(column.type) else []


def _inputs(done: pa.Table, rejected: pa.Table, inputs: Iterable[str]) -> Iterable[str]:
    """Each input has its rows in one of the two tables, and those of one that is done cover it without a gap."""
    clips = Counter(done["clip"].to_pylist() + rejected["clip"].to_pylist())
    yield from (f"{clip} is there {times} times" for clip, times in clips.items() if times > 1)
    here, there = set(done["source"].to_pylist()), set(rejected["source"].to_pylist())
    yield from (f"{source} is done and rejected" for source in here & there)
    yield from (f"{source} is neither done nor rejected" for source in set(inputs) - here - there)
    yield from (f"{source} is no input" for source in (here | there) - set(inputs))
    parts = sorted(zip(*(done[name].to_pylist() for name in ("source", "start_s", "seconds")), strict=True))
    for (one, start_s, seconds), (two, next_s, _) in pairwise([("", 0.0, 0.0), *parts]):
        if next_s != (start_s + seconds if one == two else 0.0):
            yield f"{two} has a gap before {next_s} s"


def _sums(top: Path, said: dict[str, Any], done: pa.Table, rejected: pa.Table) -> Iterable[str]:
    """What dataset.json says of the files and rows beside it."""
    for part in [*said["parts"], said["rejects"]]:
        data = (top / part["path"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != part["sha256"] or len(data) != part.get("bytes", len(data)):
            yield f"{part['path']} is not the file that dataset.json names"
        if pq.read_metadata(top / part["path"]).num_rows != part["rows"]:
            yield f"{part['path']} has other rows than dataset.json says"
    if {*(top / "data").glob("*.parquet")} != {top / part["path"] for part in said["parts"]}:
        yield "a glob over the parts finds others than dataset.json names"
    reasons, counts = dict(Counter(rejected["reason"].to_pylist())), said["counts"]
    sums = done.num_rows, rejected.num_rows, done.num_rows + rejected.num_rows, reasons
    if sums != (counts["done"], counts["rejected"], counts["clips"], counts["reasons"]):
        yield f"dataset.json counts {counts}, the rows are {sums}"
    if abs(sum(done["seconds"].to_pylist()) - said["seconds"]) > 1e-6:
        yield "the seconds of the rows are not those of dataset.json"


def _record(store: Path, path: Path, record: dict[str, Any]) -> Iterable[str]:
    """A record has the hash it names, and so has what it points to."""
    plain = json.dumps({key: value for key, value in record.items() if key != "sha256"}, sort_keys=True)
    if hashlib.sha256(plain.encode()).hexdigest() != record["sha256"]:
        yield f"{path.name} is not what was sealed"
    if path.name != f"{record['shard']}.{record['attempt']}.json":
        yield f"{path.name} is the record of another attempt"
    for what, rows in (("data", "done"), ("rejects", "rejected")):
        facts = record[what] or {"rows": 0, "key": ""}
        if facts["rows"] != record[rows]:
            yield f"{path.name} counts {record[rows]} {rows} and has {facts['rows']}"
        if facts["key"] and not (store / facts["key"]).exists():
            yield f"{path.name} is a record without its {what}"
        elif facts["key"] and hashlib.sha256((store / facts["key"]).read_bytes()).hexdigest() != facts["sha256"]:
            yield f"{path.name} has other {what} than it names"


def _choice(store: Path, name: str, said: dict[str, Any], records: dict[tuple[str, str], Any]) -> Iterable[str]:
    """One plan and one choice: an attempt of each of its shards, which add up to what dataset.json says."""
    if len(choices := [*(store / "_mill" / "choice" / name).glob("[!.]*")]) != 1:
        return [f"there are {len(choices)} choices"]
    [plan] = [json.loads(path.read_bytes()) for path in (store / "_mill" / "plan" / name).rglob("*.json")]
    planned = pq.read_table(store / plan["shards"]["key"])["shard"].to_pylist()
    chosen = [(shard, attempt) for _, shard, attempt in json.loads(choices[0].read_bytes())["shards"]]
    if planned != [shard for shard, _ in chosen] or len({*planned}) != len(planned):
        return ["the choice does not name every shard of the plan once"]
    if missing := [pair for pair in chosen if pair not in records]:
        return [f"{pair} is chosen and has no record" for pair in missing]
    counts = said["counts"]
    for what, sums in (("found", counts["clips"]), ("done", counts["done"]), ("rejected", counts["rejected"])):
        if sum(records[pair][what] for pair in chosen) != sums:
            return [f"the records' {what} is not {sums}"]
    return [] if plan["objects"]["rows"] == counts["objects"] else ["dataset.json counts other objects than the plan"]
