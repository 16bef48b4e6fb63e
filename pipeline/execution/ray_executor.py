"""Run the stages with Ray Data, on a cluster or on a private Ray of one node. A row is a clip, a block is a shard."""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.actor import ActorHandle
from ray.data import DataContext

from wavmill.pipeline.errors import AGAIN, JobError, Stopped
from wavmill.pipeline.execution.claims import end_dead_claims, execution_name
from wavmill.pipeline.execution.nodes import SAMPLED, alive, check_nodes, lost_since, needs_of, started_here
from wavmill.pipeline.execution.resources import Shares, nodes_of, shares_of, why_waiting
from wavmill.pipeline.execution.stages import Stage, Watch, Wiring
from wavmill.pipeline.execution.watchdog import Board, BoardHandle, Watched, patience
from wavmill.pipeline.execution.worker_errors import expected, one_line, ray_error_in
from wavmill.pipeline.job.choice import Choice
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.plan import bytes_per_s, objects_between
from wavmill.pipeline.rows import PlannedObject, PlannedShard
from wavmill.pipeline.store.corpus import spread

MOST_AT_WORK = 3  # the most workers that an error message lists
WAVE_SHARDS = 20_000  # Ray's driver keeps 16 KB per shard


class RayExecutor:
    """An Executor (stages.py). ``connect`` is called when there is work: a finished job needs no Ray."""

    def __init__(self, connect: Callable[[], object]) -> None:
        self.connect = connect

    def __call__(
        self, job: Job, wiring: Wiring, shards: Iterable[PlannedShard], watch: Watch
    ) -> Generator[pa.Table, None, None]:
        todo, ready = iter(shards), False
        while wave := list(islice(todo, WAVE_SHARDS)):
            self.connect()
            if not ready and (others := make_ready(job, wave, wiring(None))):
                said = f"Ray Data gives this run a part of the CPUs: others that share the cluster: {others}"
                watch({"waiting": said})
            ready = True
            yield from _mill(job, wiring, wave, watch)


def make_ready(job: Job, shards: list[PlannedShard], stages: Sequence[Stage]) -> int:
    """Prepare a cluster: classes, nodes, dead claims. Return how many other claims share its CPUs."""
    choices = [choice for stage in stages for choice in stage.choices]
    ship_outside_classes([job.source, *choices])
    if started_here():
        return 0
    check_nodes(needs_of(job, some_objects(job, shards), choices))
    return end_dead_claims()


def some_objects(job: Job, shards: list[PlannedShard]) -> list[PlannedObject]:
    """The first object of a few shards, evenly spread, for the nodes to check."""
    heads = [(one["objects"], one["row_lo"], one["row_lo"] + 1) for one in spread(shards, SAMPLED)]
    return [row for head in heads for row in objects_between(job.store, *head).to_pylist()]


def ship_outside_classes(choices: Sequence[Choice]) -> None:
    """Have classes from outside wavmill pickled by value: they need not be installed on the nodes."""
    for choice in choices:
        module = sys.modules[type(choice).__module__]
        if module.__name__.partition(".")[0] != "wavmill":
            ray.cloudpickle.register_pickle_by_value(module)


class ToBoard:
    """Reports what a worker begins and ends to a Board that is an actor."""

    def __init__(self, actor: BoardHandle) -> None:
        self.actor = actor

    def begins(self, shard: str, stage: str, where: str) -> None:
        self.actor.begins.remote(shard, stage, where)

    def ends(self, shard: str) -> None:
        self.actor.ends.remote(shard)


def _mill(job: Job, wiring: Wiring, shards: list[PlannedShard], watch: Watch) -> Iterator[pa.Table]:
    """Run the stages over the shards of one wave. Tasks decode, a pool on GPUs extracts, tasks do the rest."""
    board = actor_beside_driver(Board)
    stages = wiring(board if job.source.gives == "audio" and not started_here() else None)
    shares = cluster_shares(job, max(shard["seconds"] for shard in shards))
    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is a shard, however large
    context.raise_original_map_exception = True  # Ray's wrapped error loses the original's type
    context.memory_usage_poll_interval_s = None  # it would run a thread per task that reads the memory map
    context.enable_progress_bars, context.print_on_execution_start = False, False
    rows = ray.data.from_items(shards, override_num_blocks=len(shards))
    rows.set_name(execution_name())
    for stage in stages:
        given = stage.work, stage.name, job.scale.patience_s, ToBoard(board)
        options = {"decode": shares.decode, "feature": shares.feature, "rest": shares.rest}[stage.share]()
        if stage.share == "feature" and shares.pool_workers:  # actors take a class
            rows = _add(rows, Watched, fn_constructor_args=given, **options)
        else:
            rows = _add(rows, Watched(*given), **options)
    with patience(partial(board_says, board), idle, watch) as moved:
        for done in results(rows, board):
            moved()
            yield done


def actor_beside_driver(kind: type) -> ActorHandle:
    """Start an actor on the driver's node, so that the loss of another node does not end it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=here).remote()


def _add(rows: ray.data.Dataset, fn: Any, **options: Any) -> ray.data.Dataset:
    """Add a stage that gets and returns whole blocks. With GPUs ``map_batches`` demands a batch size, and with one it
    bundles blocks; the internal method that it calls takes None."""
    return rows.map_batches_internal(fn, batch_size=None, batch_format="pyarrow", **options)


def cluster_shares(job: Job, longest_s: float) -> Shares:
    """What each stage gets of the connected cluster. JobError when the job would wait for ever."""
    nodes = nodes_of(ray)
    shares = shares_of(job, nodes, int(bytes_per_s(job) * longest_s))
    grows = job.scale.feature.workers != "auto"  # a number that is given may count on nodes that will join
    if not grows and (reason := why_waiting(shares, nodes)):
        raise JobError(
            f"scale: this would wait for ever: {reason}; name scale.feature.workers for a cluster that grows"
        )
    return shares


def results(rows: ray.data.Dataset, board: BoardHandle | None = None) -> Iterator[pa.Table]:
    """Yield the blocks of the last stage as they come. Raises the error of a worker as it was raised there."""
    before = alive()
    try:
        yield from rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except Exception as error:
        if (cause := expected(error)) is not None:
            raise cause from None
        if (fault := ray_error_in(error)) is not None:
            lost = f"; lost: {', '.join(nodes)}" if (nodes := lost_since(before)) else ""
            at = f"; at work were {'; '.join(lines[:MOST_AT_WORK])}" if (lines := board_says(board)) else ""
            raise Stopped(f"{one_line(fault)}{lost}{at}; {AGAIN}") from error
        raise


def idle() -> str:
    """Why no worker has begun a shard yet: what the cluster lacks."""
    free, all_cpus = ray.available_resources().get("CPU", 0.0), ray.cluster_resources().get("CPU", 0.0)
    return f"no worker is at a shard: Ray has {free:g} of {all_cpus:g} CPUs free, and starts workers or waits for them"


def board_says(board: BoardHandle | None) -> list[str]:
    """A line per working worker; none when the board is lost."""
    try:
        lines: list[str] = ray.get(board.lines.remote(), timeout=10) if board is not None else []
    except ray.exceptions.RayError:
        return []
    return lines
