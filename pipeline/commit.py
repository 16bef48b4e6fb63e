"""Commit: the last stage of a run. It checks a shard, puts its data, then its record, and returns one small row.

_mill/out/<F>/<kk>/<K>.<A>.parquet            the clips      every name carries a random attempt id A, so
_mill/out/<F>/<kk>/<K>.<A>.rejects.parquet    the rejects    no two executions ever write the same object
_mill/done/<F>/<k>/<K>.<A>.json               the record     written last: it is the commit
"""

import io
import json
import secrets
import socket
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import VERSION, notices
from pipeline.columns import columns_of
from pipeline.errors import Stopped
from pipeline.job import Job, fingerprint
from pipeline.parquet import parquet_writer
from pipeline.processors import processors
from pipeline.rows import FAULT, NOTHING, rejects
from pipeline.spent import spent_s
from pipeline.store import Store, open_store, sha256

GROUP_ROWS = 1000  # of the clips at rest
PREFIXES = "0123456789abcdef"
RECORDED_VERSIONS = ("ray", "numpy", "pyarrow", "soundfile", "av", "soxr")


class Commit:
    """A finished shard in memory -> its attempt in the store. Never overwrites, never deletes.

    A shard that could not be read is not committed: its row has the reason in ``fault``.
    """

    def __init__(self, job: Job) -> None:
        self.store, self.fingerprint = open_store(job.store), fingerprint(job)
        self.columns, self.carry = columns_of(job), job.source.carried()

    def __call__(self, shard: pa.Table) -> pa.Table:
        start = perf_counter()
        key, attempt, found = self._checked(shard)
        if shard["error"][0].as_py() == FAULT:
            return _row({"shard": key, "found": 0, "done": 0, "rejected": 0, "seconds": 0.0, "reasons": {}},
                        shard["message"][0].as_py())  # fmt: skip
        good = pc.equal(shard["error"], "")
        good_rows = shard.filter(good)
        done = good_rows.select(self.columns.names).cast(self.columns)
        bad = shard.filter(pc.and_(pc.invert(good), pc.not_equal(shard["error"], NOTHING)))
        if done.num_rows + bad.num_rows != found:
            raise AssertionError(f"shard {key}: {found} clips found, {done.num_rows} done, {bad.num_rows} rejected")
        at = f"_mill/out/{self.fingerprint}/{key[:2]}/{key}.{attempt}"
        record = {
            "shard": key,
            "attempt": attempt,
            "fingerprint": self.fingerprint,
            "found": found,
            "done": done.num_rows,
            "rejected": bad.num_rows,
            "seconds": pc.sum(done["seconds"]).as_py() or 0.0,
            "reasons": dict(Counter(bad["error"].to_pylist())),
            "notices": notices.counted(good_rows),
            "data": self._put(f"{at}.parquet", done) if done.num_rows else None,
            "rejects": self._put(f"{at}.rejects.parquet", self._rejects(bad)) if bad.num_rows else None,
            "host": socket.gethostname(),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "processors": processors(shard),
            "spent_s": {**spent_s(shard), "commit": round(perf_counter() - start, 6)},
            "versions": versions(),
        }
        self.store.put(record_key(self.fingerprint, key, attempt), sealed(record))
        return _row(record)

    def _checked(self, shard: pa.Table) -> tuple[str, str, int]:
        """The shard's key, a new attempt id, and the number of clips; AssertionError unless it arrived whole."""
        keys, counts = pc.unique(shard["shard"]).to_pylist(), pc.unique(shard["found"]).to_pylist()
        if len(keys) != 1 or len(counts) != 1 or max(counts[0], 1) != shard.num_rows:
            raise AssertionError(f"a shard came apart: {keys} with {shard.num_rows} of {counts} rows")
        return keys[0], secrets.token_hex(8), counts[0]

    def _rejects(self, bad: pa.Table) -> pa.Table:
        schema = rejects(self.carry)
        bad = bad.append_column("reason", bad["error"])
        return bad.select(schema.names).cast(schema)

    def _put(self, key: str, table: pa.Table) -> dict[str, Any]:
        data = parquet_bytes(table)
        again = pq.ParquetFile(io.BytesIO(data))
        if again.metadata.num_rows != table.num_rows or again.schema_arrow != table.schema:
            raise AssertionError(f"{key}: what was written is not what is read back")
        self.store.put(key, data)
        return {"key": key, "sha256": sha256(data), "bytes": len(data), "rows": table.num_rows}


def _row(record: dict[str, Any], fault: str = "") -> pa.Table:
    """What the driver hears of a shard."""
    names = ("shard", "found", "done", "rejected", "seconds")
    facts = {name: [record[name]] for name in names}
    return pa.table({**facts, "reasons": [json.dumps(record["reasons"])], "fault": [fault]})


@cache
def versions() -> dict[str, str]:
    """Of what made the numbers; looked up once, for it takes as long as a small shard."""
    return {"wavmill": VERSION, **{name: version(name) for name in RECORDED_VERSIONS}}


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=GROUP_ROWS)
    return sink.getvalue()


# ---- records ----------------------------------------------------------------------------------------------------


def record_key(job_fingerprint: str, shard: str, attempt: str) -> str:
    return f"_mill/done/{job_fingerprint}/{shard[0]}/{shard}.{attempt}.json"


def sealed(record: dict[str, Any]) -> bytes:
    """A record with its own hash. ValueError when a number in it is not finite: JSON has no word for it."""
    return _with_hash(record, allow_nan=False)


def _with_hash(record: dict[str, Any], allow_nan: bool) -> bytes:
    plain = json.dumps(record, sort_keys=True, allow_nan=allow_nan)
    return json.dumps({**record, "sha256": sha256(plain.encode())}, sort_keys=True, allow_nan=allow_nan).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """The record; ValueError when it does not have the hash it names. Numbers in it may be what ``sealed`` refuses."""
    record = json.loads(data)
    if _with_hash({name: value for name, value in record.items() if name != "sha256"}, allow_nan=True) != data:
        raise ValueError("a record without the hash it names")
    return record


def attempts_done(store: Store, job_fingerprint: str) -> dict[str, str]:
    """Every shard with a record, and of its attempts the first by name. Lists 16 prefixes at once, reads nothing."""

    def one(prefix: str) -> list[tuple[str, str]]:
        keys = (entry.key for entry in store.list(f"_mill/done/{job_fingerprint}/{prefix}/"))
        return [(name[0], name[1]) for key in keys if len(name := key.rsplit("/", 1)[1].split(".")) == 3]

    first: dict[str, str] = {}
    with ThreadPoolExecutor(len(PREFIXES)) as pool:
        for shard, attempt in sorted(pair for pairs in pool.map(one, PREFIXES) for pair in pairs):
            first.setdefault(shard, attempt)
    return first


def read_records(store: Store, job_fingerprint: str, chosen: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The records of (shard, attempt) pairs, in their order, each checked against its own hash."""

    def one(pair: tuple[str, str]) -> dict[str, Any]:
        key = record_key(job_fingerprint, *pair)
        try:
            return unsealed(store.read(key))
        except ValueError as error:
            raise Stopped(f"{store.url}/{key} is damaged: it does not have the hash it names") from error

    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(one, chosen))
