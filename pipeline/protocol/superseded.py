"""Which rows of each shard are superseded by later plans.

A later plan adds objects; an object that is listed again, because it changed, replaces all rows that were made of it;
one that is no longer listed stays. A retry replaces only rejects of its reason (retry_rules.py). docs/versions.md
explains the cases to users.

Shards are compared one by one with the objects of the other plans, so that memory does not grow with the corpus
(planned_objects.py).
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.formats.clip_ids import sound_of
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.plan import Plan
from wavmill.pipeline.protocol.planned_objects import ROW, PlannedObjects, Replaced, replaced_by
from wavmill.pipeline.protocol.records import Record
from wavmill.pipeline.protocol.retry_rules import Outcome, after_retry
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.store.objects import ahead
from wavmill.pipeline.store.parquet import open_parquet

CACHED_SHARDS = 64


class Superseded(NamedTuple):
    """The superseded rows of a shard: a row is superseded when any of these names it."""

    sources: set[str]  # all rows of these objects
    names: set[str]  # all rows of these rows of a manifest
    clips: set[str]  # rows with these ids
    rows: set[str]  # the names of all rows of a manifest in the shard


class Supersession:
    """The plans of a job and the records of their shards: which rows are superseded. Safe to use from threads."""

    def __init__(self, store: Store, job: Job, plans: list[Plan], records: list[Record]) -> None:
        self.store, self.plans = store, plans
        self.by_clip = job.source.gives != "audio"  # the rows of a dataset: each clip is tried again by itself
        self.retries = [plan.head.retry for plan in plans]
        self.records = {record.shard: record for record in records}
        self.objects = [PlannedObjects(store, plan.objects_key) for plan in plans]
        rows = (plan.shards.select(["shard", "row_lo", "row_hi"]).to_pylist() for plan in plans)
        self.places = {row["shard"]: (at, row["row_lo"], row["row_hi"]) for at, some in enumerate(rows) for row in some}
        self._outcomes = lru_cache(CACHED_SHARDS)(self._read_outcomes)

    def close(self) -> None:
        for objects in self.objects:
            objects.source.close()

    def superseded(self, shard: str) -> Superseded | None:
        """The rows of a shard that later plans replace, or that a retry may not replace; None when all are current."""
        if len(self.plans) == 1:
            return None
        at, row_lo, row_hi = self.places[shard]
        own = self.objects[at].between(row_lo, row_hi)
        replaced = self.replaced(at, own)
        clips = self._gone_clips(at, shard, own, replaced.paths)
        if not (replaced.paths or replaced.names or clips):
            return None
        return Superseded(
            replaced.paths, replaced.names, clips, set(own["clip"].to_pylist()) if replaced.names else set()
        )

    def replaced(self, at: int, objects: pa.Table) -> Replaced:
        """A mask of the objects of the plan with index ``at`` that were listed again later."""
        later = [self.objects[i] for i in range(at + 1, len(self.plans)) if not self.retries[i]]
        return replaced_by(later, objects)

    def current(self, at: int, objects: pa.Table) -> pa.Table:
        """The objects of a plan that no later listing replaces."""
        replaced = self.replaced(at, objects)
        return objects.filter(pa.array([not replaced.holds(row) for row in objects.to_pylist()], pa.bool_()))

    def listed(self) -> int:
        """The number of listed objects; one that changed counts once."""
        listings = [at for at in range(len(self.plans)) if not self.retries[at]]
        counts = [plan.head.objects.rows for plan in self.plans]
        whole, grown = listings[-1], listings[:-1]  # nothing replaces the newest
        return int(
            counts[whole] + sum(self.current(at, piece).num_rows for at in grown for piece in self.objects[at].pieces())
        )

    def _gone_clips(self, at: int, shard: str, own: pa.Table, replaced: set[str]) -> set[str]:
        """The ids of a shard's rows that retries supersede."""
        tried = [i for i in range(at, len(self.plans)) if self.retries[i]]
        paths: set[str] = set()
        for i in tried:
            paths |= set((own if i == at else self.objects[i].beside(own))["path"].to_pylist())
        paths -= replaced
        if not paths:
            return set()
        mine = own.filter(pc.is_in(own["path"], pa.array(sorted(paths), pa.string())))
        stand = {
            clip for clips in self._standing(mine, paths).values() for clip, one in clips.items() if one.plan == at
        }
        ids, sources, _ = self._outcomes(shard)
        return {clip for clip, source in zip(ids, sources, strict=True) if self._is_of(paths, source)} - stand

    def _is_of(self, paths: set[str], source: str) -> bool:
        return self.by_clip or source in paths

    def _standing(self, objects: pa.Table, paths: set[str]) -> dict[str, dict[str, Outcome]]:
        """The current clips of objects that were tried again, by object and plan."""
        stand: dict[str, dict[str, Outcome]] = {}
        stamps: dict[str, str] = {}
        known: set[str] = set()
        missing: dict[str, set[str]] = {}
        for at, retry in enumerate(self.retries):
            rows = self.objects[at].beside(objects)
            if not rows.num_rows:
                continue
            found: dict[str, dict[str, Outcome]] = defaultdict(dict)
            for ids, sources, reasons in ahead(self._outcomes, self._shards(at, rows)):
                for clip, source, reason in zip(ids, sources, reasons, strict=True):
                    if self._is_of(paths, source):
                        found[clip if self.by_clip else source][clip] = Outcome(at, reason)
            if not retry:
                self._forget(stand, stamps, known, missing, at, rows)
            for key, clips in found.items():
                before = stand.get(key, {})
                stand[key] = after_retry(key, before, clips, retry) if retry else before | clips
        return stand

    def _forget(
        self,
        stand: dict[str, dict[str, Outcome]],
        stamps: dict[str, str],
        known: set[str],
        missing: dict[str, set[str]],
        at: int,
        rows: pa.Table,
    ) -> None:
        """Drop what a listing replaces, as ``replaced_by`` does, and note what it says.

        ``stamps``: of each path that was there, as listed last; ``known``: the names of all rows of a manifest;
        ``missing``: by path, the names of those whose sound was not there.
        """
        gone: set[str] = set()
        for row in rows.to_pylist():
            path, stamp, name = row["path"], row["stamp"], row.get("clip")
            if name is None or (row["size"] >= 0 and stamps.get(path, stamp) != stamp):
                stand.pop(path, None)
            if row["size"] >= 0:
                stamps[path] = stamp
                gone |= missing.pop(path, set())
            elif name is not None:
                missing.setdefault(path, set()).add(name)
            gone |= {name} - {None}
        known |= gone
        for path, clips in stand.items():
            stand[path] = {clip: one for clip, one in clips.items() if _row_of(clip, known) not in gone}

    def _shards(self, at: int, rows: pa.Table) -> list[str]:
        """The shards of a plan that hold any of the objects."""
        shards = self.plans[at].shards
        found = np.unique(np.searchsorted(shards["row_hi"].to_numpy(), rows[ROW].to_numpy(), side="right"))
        result: list[str] = shards["shard"].take(pa.array(found)).to_pylist()
        return result

    def _read_outcomes(self, shard: str) -> tuple[list[str], list[str], list[str]]:
        """The ids, sources and reject reasons of all rows of a shard."""
        ids: list[str] = []
        sources: list[str] = []
        reasons: list[str] = []
        record = self.records[shard]
        for stored, columns in ((record.data, ["clip", "source"]), (record.rejects, ["clip", "source", "reason"])):
            if stored is not None:
                table = self._columns(stored.key, columns)
                ids += table["clip"].to_pylist()
                sources += table["source"].to_pylist()
                reasons += table["reason"].to_pylist() if "reason" in columns else [""] * table.num_rows
        return ids, sources, reasons

    def _columns(self, key: str, columns: Iterable[str]) -> pa.Table:
        try:
            with open_parquet(self.store, key) as file:
                return file.read(columns=list(columns))
        except FileNotFoundError as error:
            raise Stopped(f"{self.store.url}/{key} is gone, and its record says it was written") from error


def without_superseded(table: pa.Table, gone: Superseded | None) -> pa.Table:
    """The rows of a shard's table that are not superseded."""
    if gone is None:
        return table
    out = pc.or_(_among(table["source"], gone.sources), _among(table["clip"], gone.clips))
    if gone.names:
        ids = table["clip"].to_pylist()
        out = pc.or_(out, pa.array([_row_of(clip, gone.rows) in gone.names for clip in ids], pa.bool_()))
    return table.filter(pc.invert(out))


def _row_of(clip: str, rows: set[str]) -> str:
    """The name of the manifest row that a clip came from."""
    return clip if clip in rows else sound_of(clip)


def _among(column: pa.ChunkedArray, values: set[str]) -> pa.ChunkedArray:
    return pc.is_in(column, pa.array(sorted(values), pa.string()))
