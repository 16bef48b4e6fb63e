"""A job of words, run in this process by the product's local executor; and what was published, for comparing."""

import hashlib
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from wavmill.pipeline.decoding import decode
from wavmill.pipeline.execution.local_executor import LocalExecutor
from wavmill.pipeline.execution.stages import stages_of
from wavmill.pipeline.job.dataset_job import Job, fingerprint, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import Plan, make_plans, todo_of
from wavmill.pipeline.protocol.publish import publish
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.protocol.retry import retried
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.faults import Faults
from wavmill.pipeline.workspace import Workspace

WORDS = """
name: words
source: {{kind: files, path: "{path}"}}
clip: {{max_s: 2}}
feature: {{kind: mel}}
window: {{kind: fixed, length_frames: 10, stride_frames: 5}}
keep: [feature, window]
store: "{store}"
"""


def words(path: Any, store: Any, *sets: str) -> Job:
    """A resolved job of mel features and windows over a folder."""
    return resolve(parse_job(WORDS.format(path=path, store=store), "words.yaml", sets))


def mill(job: Job, plans: list[Plan], most: int | None = None) -> int:
    """Mill the shards without a record in this process, ``most`` at most; return how many."""
    todo = list(todo_of(plans, set(attempts_done(open_store(job.store), fingerprint(job)))))[:most]
    faults = Faults()
    for table in LocalExecutor(0)(job, partial(stages_of, Workspace(job)), todo, lambda row: None):
        for row in table.to_pylist():
            faults.see(row)
    faults.stop()
    return len(todo)


def without_fence(sounds: Any, clip: Any, rate_hz: int) -> Any:
    """parts_of_each in this process, where nothing is passed on in a file and nothing has to start."""
    return ((name, decode.parts_of(file, clip, rate_hz, *part) if file else iter(())) for name, file, part in sounds)


def run_inline(job: Job, refresh: bool = False, retry: str = "") -> dict[str, Any]:
    """What ``wavmill run [--refresh] [--retry REASON]`` does, from listing to dataset.json."""
    work = Workspace(job)
    plans = make_plans(work, refresh)
    if retry:
        plans = retried(work, plans, retry)
    mill(job, plans)
    plans[-1].left_out.stop_if_faults()
    return publish(work, plans)


def rows_of(job: Job, dataset: dict[str, Any]) -> pa.Table:
    """Every published row, in order, read through the store, whatever it is."""
    store, top = open_store(job.store), f"{job.name}/v{dataset.version}"
    tables = [read_parquet(store.read(f"{top}/{part.path}")) for part in dataset.parts]
    return pa.concat_tables(tables)


def read_parquet(data: bytes) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(data))


def digest(table: pa.Table) -> str:
    """A hash of the rows, sorted by clip, that does not depend on files, chunks or row groups."""
    table = table.sort_by("clip").combine_chunks()
    hashed = hashlib.sha256(str(table.schema.remove_metadata()).encode())
    for row in table.to_pylist():
        hashed.update(repr({k: np.asarray(v).tobytes() if isinstance(v, list) else v for k, v in row.items()}).encode())
    return hashed.hexdigest()


def globbed(folder: Any) -> pa.Table:
    """What a reader gets who knows nothing but data/*.parquet."""
    return pads.dataset(str(folder), format="parquet").to_table()
