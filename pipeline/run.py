"""run(job): mill what has no record yet, publish. The whole pipeline on one screen."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext

from pipeline.claims import end_dead_claims, execution_name
from pipeline.commit import Commit
from pipeline.corpus import spread
from pipeline.dataset_json import PublishedDataset
from pipeline.errors import JobError, Stopped
from pipeline.faults import Faults, stop_if_not_listed
from pipeline.job import Job, fingerprint
from pipeline.nodes import SAMPLED, alive, check_nodes, lost_since, needs_of, started_here
from pipeline.plan import Plan, bytes_per_s, objects_between, todo_of
from pipeline.publish import publish, published
from pipeline.read import Read
from pipeline.records import attempts_done
from pipeline.rows import CONTEXT
from pipeline.scale import Shares, nodes_of, shares_of, why_waiting
from pipeline.step import Apply
from pipeline.store import open_store
from pipeline.watchdog import SAY_S, Board, Watched
from pipeline.worker_errors import brief, expected, fault_of_ray

IDLE_S = 30.0  # without a worker at any shard, until the driver says what it waits for
MOST_AT_WORK = 3  # workers that a message about a fault lists
WAVE_SHARDS = 20_000  # Ray's driver keeps 16 KB per shard
Watch = Callable[[dict[str, Any]], None]


def run(
    job: Job,
    plans: list[Plan],
    connect: Callable[[], Any],
    watch: Watch = lambda row: None,
    done: set[str] | None = None,
) -> PublishedDataset:
    """Make the dataset of a resolved job; return dataset.json. The same call again goes on where this one ended.

    ``connect`` is called when there is something to mill: a finished job needs no Ray. ``watch`` gets one small
    row per shard that is done, and ``{"waiting": text}`` when for long none is. ``done``: the shards with a record,
    where they are known already.
    """
    if done is None:
        if (already := published(job, plans)) is not None:
            return already
        done = set(attempts_done(open_store(job.store), fingerprint(job)))
    todo, faults, ready = todo_of(plans, done), Faults(), False
    while wave := list(islice(todo, WAVE_SHARDS)):
        connect()
        if not ready and (others := make_ready(job, partial(some_objects, job, wave), job.steps)):
            watch({"waiting": f"Ray Data gives this run a part of the CPUs: others that share the cluster: {others}"})
        ready = True
        mill(job, wave, watch, faults)
    faults.stop()
    stop_if_not_listed(job.source)
    return publish(job, plans)


def make_ready(job: Job, objects: Callable[[], list[dict[str, Any]]], choices: Sequence[Any]) -> int:
    """What comes before the first shard of a run or a fit; return how many others share the cluster's CPUs.

    Every node is asked about ``objects`` and ``choices``, as check_nodes says; of a private Ray nothing is.
    """
    take_along(job)
    if started_here():
        return 0
    check_nodes(needs_of(job, objects(), choices))
    return end_dead_claims()


def some_objects(job: Job, shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first object of a few shards, spread over all of them, for the nodes to look at."""
    heads = [(one["objects"], one["row_lo"], one["row_lo"] + 1) for one in spread(shards, SAMPLED)]
    return [row for head in heads for row in objects_between(job.store, *head).to_pylist()]


def mill(job: Job, shards: list[dict[str, Any]], watch: Watch, faults: Faults) -> None:
    """Run the stages over the shards of one wave. A row is a clip, a block is a shard, from reading to commit.

    Shards that could not be read are left to ``faults``.
    """
    last_read = ["feature"] if "feature" not in job.keep else []
    board = beside_driver(Board)

    early = [job.token] if last_read and job.token and getattr(job.window, "over", "token") == "token" else []
    rest = [step for step in (job.token, job.window) if step is not None and step not in early]
    rows, shares = extracted(job, shards, board, early)
    rows = stage(rows, watched(job, Apply(rest, drop=last_read), "token", board), **shares.rest())
    rows = stage(rows, watched(job, Commit(job), "commit", board), **shares.rest())
    with patience(board, watch) as moved:
        for done in results(rows, board):
            moved()
            for row in done.to_pylist():
                if not faults.see(row):
                    watch(row)


def extracted(
    job: Job, shards: list[dict[str, Any]], board: Any = None, early: Sequence[Any] = ()
) -> tuple[ray.data.Dataset, Shares]:
    """The first stages: shards of the plan -> clips with their features. Tasks decode, a pool on GPUs extracts.

    ``early`` steps run where the features are made, and only what they make leaves that worker.
    """
    shares = cluster_shares(job, max(shard["seconds"] for shard in shards))
    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is a shard, however large
    context.raise_original_map_exception = True  # Ray's own wrapping loses which error it was
    context.memory_usage_poll_interval_s = None  # a thread per task that reads the process's memory map
    context.enable_progress_bars, context.print_on_execution_start = False, False
    rows = ray.data.from_items(shards, override_num_blocks=len(shards))
    rows.set_name(execution_name())
    ask = board if job.source.gives == "audio" and not started_here() else None
    rows = stage(rows, watched(job, Read(job, ask), "read", board), **shares.decode())
    if job.feature is not None:
        drop = ["audio", *CONTEXT, *(["feature"] if early else [])]
        work: Any = watched(job, Apply([job.feature, *early], drop), "feature", board)
        options = shares.feature()
        if shares.pool_workers:  # actors take a class
            work, options["fn_constructor_args"] = Watched, (work.stage, work.name, work.patience_s, board)
        rows = stage(rows, work, **options)
    return rows, shares


def take_along(job: Job) -> None:
    """Classes from outside travel to where they are not installed."""
    for choice in (job.source, *job.steps):
        module = sys.modules[type(choice).__module__]
        if module.__name__.partition(".")[0] != "pipeline":
            ray.cloudpickle.register_pickle_by_value(module)


def beside_driver(kind: type[Any]) -> Any:
    """An actor on the driver's node: the loss of another node does not end it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=here).remote()


def watched(job: Job, work: Any, name: str, board: Any) -> Watched:
    return Watched(work, name, job.scale.patience_s, board)


def stage(rows: ray.data.Dataset, fn: Any, **options: Any) -> ray.data.Dataset:
    """A map_batches that gets and returns whole blocks. The public one wants a batch size where there are GPUs,
    and with one it bundles blocks; the internal one, which the public one calls, takes None everywhere."""
    return rows.map_batches_internal(fn, batch_size=None, batch_format="pyarrow", **options)


def cluster_shares(job: Job, longest_s: float) -> Shares:
    """What each stage takes of the cluster that Ray is connected to. JobError when the job would wait for ever."""
    nodes = nodes_of(ray)
    shares = shares_of(job, nodes, int(bytes_per_s(job) * longest_s))
    grows = job.scale.feature.workers != "auto"  # who names a number may mean nodes that are yet to come
    if not grows and (reason := why_waiting(shares, nodes)):
        raise JobError(
            f"scale: this would wait for ever: {reason}; name scale.feature.workers for a cluster that grows"
        )
    return shares


def results(rows: ray.data.Dataset, board: Any = None) -> Iterator[pa.Table]:
    """The blocks of the last stage as they come. What stops a stage is raised as the error it was in the worker."""
    before = alive()
    try:
        yield from rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except Exception as error:
        if (cause := expected(error)) is not None:
            raise cause from None
        if (fault := fault_of_ray(error)) is not None:
            lost = f"; lost: {', '.join(nodes)}" if (nodes := lost_since(before)) else ""
            at = f"; at work were {'; '.join(lines[:MOST_AT_WORK])}" if (lines := board_says(board)) else ""
            raise Stopped(f"{brief(fault)}{lost}{at}; run the same command again to go on") from error
        raise


@contextmanager
def patience(board: Any, watch: Watch) -> Iterator[Callable[[], None]]:
    """Gives what is to be called at every finished shard. While it is not for long, another thread says who waits."""
    over, last = threading.Event(), [monotonic()]

    def moved() -> None:
        last[0] = monotonic()

    def look() -> None:
        said, asked = monotonic(), monotonic()
        while not over.wait(1.0):
            now = monotonic()
            if now - max(last[0], said) > SAY_S:
                said = now
                lines = board_says(board) or [_nobody()]
                watch({"waiting": f"no shard finished for {(now - last[0]) / 60:,.0f} min: {'; '.join(lines)}"})
            elif now - max(last[0], said, asked) > IDLE_S:
                asked = now
                if not board_says(board):
                    said = now
                    watch({"waiting": f"{_nobody()} for {now - last[0]:,.0f} s"})

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        over.set()
        thread.join()


def _nobody() -> str:
    """What a run in which no worker has begun a shard is waiting for."""
    free, all_cpus = ray.available_resources().get("CPU", 0.0), ray.cluster_resources().get("CPU", 0.0)
    return f"no worker is at a shard: Ray has {free:g} of {all_cpus:g} CPUs free, and starts workers or waits for them"


def board_says(board: Any) -> list[str]:
    """What the workers are at; nothing when the board is lost."""
    try:
        lines: list[str] = ray.get(board.lines.remote(), timeout=10) if board is not None else []
    except ray.exceptions.RayError:
        return []
    return lines
