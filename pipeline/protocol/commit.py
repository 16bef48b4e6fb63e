"""Commit: the last stage of a run. It checks a shard, puts its data, then its record, and returns one small row.

_mill/out/<F>/<kk>/<K>.<A>.parquet            the clips      every name carries a random attempt id A, so
_mill/out/<F>/<kk>/<K>.<A>.rejects.parquet    the rejects    no two executions ever write the same object
_mill/done/<F>/<k>/<K>.<A>.json               the record     (records.py), written last
"""

import io
import json
import secrets
import socket
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline import VERSION, notices
from wavmill.pipeline.errors import Bug
from wavmill.pipeline.execution.processors import processors
from wavmill.pipeline.protocol.records import Record, StoredRows, record_key
from wavmill.pipeline.protocol.timing import seconds_by_stage
from wavmill.pipeline.rows import FAULT, NOTHING, rejects
from wavmill.pipeline.store.base import sha256
from wavmill.pipeline.store.parquet import ParquetFile, parquet_writer
from wavmill.pipeline.workspace import Workspace

GROUP_ROWS = 1000  # of the clips at rest
RECORDED_VERSIONS = ("ray", "numpy", "pyarrow", "soundfile", "av", "soxr")


class Commit:
    """Write a finished shard to the store as an attempt. Never overwrites, never deletes.

    A shard that could not be read is not written; its row has the reason in ``fault``.
    """

    def __init__(self, work: Workspace) -> None:
        self.store, self.fingerprint = work.store, work.fingerprint
        self.columns, self.carry = work.columns, work.job.source.carried()

    def __call__(self, shard: pa.Table) -> pa.Table:
        start = perf_counter()
        key, attempt, found = self._checked(shard)
        if shard["error"][0].as_py() == FAULT:
            return _row(key, 0, 0, 0, 0.0, {}, fault=shard["message"][0].as_py())
        good = pc.equal(shard["error"], "")
        good_rows = shard.filter(good)
        done = good_rows.select(self.columns.names).cast(self.columns)
        bad = shard.filter(pc.and_(pc.invert(good), pc.not_equal(shard["error"], NOTHING)))
        if done.num_rows + bad.num_rows != found:
            raise Bug(f"shard {key}: {found} clips found, {done.num_rows} done, {bad.num_rows} rejected")
        at = f"_mill/out/{self.fingerprint}/{key[:2]}/{key}.{attempt}"
        record = Record(
            shard=key,
            attempt=attempt,
            fingerprint=self.fingerprint,
            found=found,
            done=done.num_rows,
            rejected=bad.num_rows,
            seconds=pc.sum(done["seconds"]).as_py() or 0.0,
            reasons=dict(Counter(bad["error"].to_pylist())),
            notices=notices.counted(good_rows),
            data=self._put(f"{at}.parquet", done) if done.num_rows else None,
            rejects=self._put(f"{at}.rejects.parquet", self._rejects(bad)) if bad.num_rows else None,
            host=socket.gethostname(),
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            processors=processors(shard),
            spent_s={**seconds_by_stage(shard), "commit": round(perf_counter() - start, 6)},
            versions=versions(),
        )
        self.store.put(record_key(self.fingerprint, key, attempt), record.written())
        return _row(key, found, done.num_rows, bad.num_rows, record.seconds, record.reasons)

    def _checked(self, shard: pa.Table) -> tuple[str, str, int]:
        """The shard's key, a new attempt id, and the number of clips; Bug unless it arrived whole."""
        keys, counts = pc.unique(shard["shard"]).to_pylist(), pc.unique(shard["found"]).to_pylist()
        if len(keys) != 1 or len(counts) != 1 or max(counts[0], 1) != shard.num_rows:
            raise Bug(f"a shard came apart: {keys} with {shard.num_rows} of {counts} rows")
        return keys[0], secrets.token_hex(8), counts[0]

    def _rejects(self, bad: pa.Table) -> pa.Table:
        schema = rejects(self.carry)
        bad = bad.append_column("reason", bad["error"])
        return bad.select(schema.names).cast(schema)

    def _put(self, key: str, table: pa.Table) -> StoredRows:
        data = parquet_bytes(table)
        again = ParquetFile(pa.BufferReader(data))
        if again.metadata.num_rows != table.num_rows or again.schema != table.schema:
            raise Bug(f"{key}: what was written is not what is read back")
        self.store.put(key, data)
        return StoredRows(key=key, sha256=sha256(data), bytes=len(data), rows=table.num_rows)


def _row(
    shard: str, found: int, done: int, rejected: int, seconds: float, reasons: dict[str, int], fault: str = ""
) -> pa.Table:
    """The row about a shard that the driver gets."""
    facts = {"shard": shard, "found": found, "done": done, "rejected": rejected, "seconds": seconds}
    return pa.table({name: [fact] for name, fact in {**facts, "reasons": json.dumps(reasons), "fault": fault}.items()})


@cache
def versions() -> dict[str, str]:
    """The versions of the libraries that affect numbers; cached, as the lookup takes as long as a small shard."""
    return {"wavmill": VERSION, **{name: version(name) for name in RECORDED_VERSIONS}}


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=GROUP_ROWS)
    return sink.getvalue()
