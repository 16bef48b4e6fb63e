"""Excerpts of a published dataset: some rows, some rejects, the sound of a few clips."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.errors import WavmillError
from wavmill.pipeline.formats.clip_ids import part_of
from wavmill.pipeline.protocol.plan import Plan
from wavmill.pipeline.protocol.planned_objects import ROW, PlannedObjects
from wavmill.pipeline.rows import arrays_of
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.store.objects import LONG_BYTES
from wavmill.pipeline.store.parquet import open_parquet
from wavmill.pipeline.workspace import Workspace

GROUPS = 20  # row groups read, of about 1,000 clips each
CLIPS = 4  # to hear
REJECTS = 20_000  # rows of the rejects looked through
EXAMPLES = 3  # of each reason
RATE_HZ = 16_000

Item = TypeVar("Item")


def spread(items: Sequence[Item], many: int) -> list[Item]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(many, len(items))).astype(int)]


def some_rows(store: Store, top: str, dataset: PublishedDataset) -> pa.Table:
    """clip, source, label, seconds and, if published, token of at most 20 row groups spread evenly over the parts."""
    columns = [name for name in ("clip", "source", "label", "seconds", "token") if name in dataset.columns]
    groups: dict[str, list[int]] = defaultdict(list)
    for path, group in spread([(p.path, g) for p in dataset.parts for g in range(p.row_groups)], GROUPS):
        groups[path].append(group)
    tables = []
    for path in groups or [dataset.parts[0].path]:
        with open_parquet(store, f"{top}/{path}") as part:
            tables.append(part.read_row_groups(groups[path], columns=columns))
    return pa.concat_tables(tables).combine_chunks()


def some_rejects(store: Store, top: str) -> dict[str, list[dict[str, Any]]]:
    """reason -> a few of its rejects, from the first of them all."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with open_parquet(store, f"{top}/rejects.parquet") as file:
        names, seen = ["clip", "stage", "reason", "message"], 0
        for batch in file.iter_batches(1000, columns=names):
            for row in batch.to_pylist():
                if len(found[row["reason"]]) < EXAMPLES:
                    found[row["reason"]].append(row)
            if (seen := seen + batch.num_rows) >= REJECTS:
                break
    return found


def picked(rows: pa.Table) -> list[dict[str, Any]]:
    """A few clips, without their tokens, spread over the labels; ``row`` is where they stand."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(rows["label"].to_pylist()):
        by_label[label or ""].append(row)
    labels = spread(sorted(by_label), CLIPS)
    turns = [spread(by_label[label], -(-CLIPS // len(labels))) for label in labels]  # each label once, then again
    chosen = [row for turn in zip_longest(*turns) for row in turn if row is not None][:CLIPS]
    plain = rows.select(["clip", "source", "label", "seconds"])
    return [{**plain.slice(row, 1).to_pylist()[0], "row": row} for row in chosen]


def originals(work: Workspace, plans: list[Plan], clips: list[dict[str, Any]]) -> list[np.ndarray | str]:
    """For each clip its sound (N,) float32 at 16 kHz, read from the corpus again; or the reason why it is missing."""
    if work.job.source.gives != "audio":
        return ["it was made from a dataset, not from sound"] * len(clips)
    with ExitStack() as opened:
        planned = [opened.enter_context(PlannedObjects(work.store, plan.objects_key)) for plan in reversed(plans)]
        return [_original(work, planned, clip) for clip in clips]


def _original(work: Workspace, planned: list[PlannedObjects], clip: dict[str, Any]) -> np.ndarray | str:
    objects = _objects(planned, clip)
    if not objects.num_rows:
        return "no plan names its object"
    if pc.max(objects["size"]).as_py() > LONG_BYTES:
        return f"its object is larger than {LONG_BYTES >> 20} MB"
    try:
        read = work.job.source.read(objects, work.job.clip, RATE_HZ)
    except (WavmillError, OSError) as error:  # the corpus may be gone, or not readable by the publisher
        return f"its sound cannot be read any more: {error}"
    found = read.filter(pc.equal(read["clip"], clip["clip"]))
    if not found.num_rows:
        return "its sound is not where it was"
    found = found.slice(0, 1)  # datasets of earlier versions may have an id twice
    [row] = found.drop_columns(["audio"]).to_pylist()
    if row["error"]:
        return f"its sound cannot be read any more: {row['error']}, {row['message']}"
    [audio] = arrays_of(found["audio"])
    return audio[row["lead_samples"] : row["lead_samples"] + row["kept_samples"]]


def _objects(planned: list[PlannedObjects], clip: dict[str, Any]) -> pa.Table:
    """The rows of the newest plan that holds the clip's object; of a manifest, which names clips, only the clip's."""
    for plan in planned:
        rows = plan.beside(pa.table({"path": [clip["source"]]})).drop_columns([ROW])
        if "clip" in rows.column_names:
            names = rows["clip"].to_pylist()
            whole, _ = part_of(clip["clip"]) or ("", 0)
            own = [name in (clip["clip"], whole) for name in names]
            rows = rows.filter(pa.array(own, pa.bool_()))
        if rows.num_rows:
            break
    return rows
