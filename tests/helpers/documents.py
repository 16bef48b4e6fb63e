"""What lies in a store as JSON, complete but for what a test is about."""

from typing import Any

from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.protocol.records import Record, StoredRows


def stored(key: str) -> StoredRows:
    return StoredRows(key=key, sha256="", bytes=0, rows=0)


def record(shard: str = "s", **facts: Any) -> Record:
    """The record of a shard without clips, as the first version wrote it."""
    made = {"attempt": "a", "fingerprint": "f", "found": 0, "done": 0, "rejected": 0, "seconds": 0.0, "reasons": {}}
    where = {"host": "h", "at": "2026-01-01T00:00:00+00:00", "data": None, "rejects": None, "versions": {}}
    return Record(**{"shard": shard, **made, **where, **facts})


def dataset(**facts: Any) -> dict[str, Any]:
    """dataset.json of a dataset without clips, as the first version wrote it."""
    counts = {"objects": 0, "clips": 0, "done": 0, "rejected": 0, "reasons": {}, "superseded": 0}
    made = {
        "format": PublishedDataset.FORMAT,
        "name": "words",
        "version": 1,
        "fingerprint": "f" * 64,
        "job": {"fingerprint": "f" * 64, "does": {}},
        "recipe": {},
        "created_at": "2026-01-01T00:00:00+00:00",
        "listed_at": ["2026-01-01T00:00:00+00:00"],
        "seconds": 0.0,
        "carry": [],
        "columns": {},
        "parts": [],
        "rejects": {"path": "rejects.parquet", "rows": 0, "sha256": ""},
    }
    return {**made, **facts, "counts": {**counts, **facts.get("counts", {})}}
