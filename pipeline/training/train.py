"""train(work): pack, train on as many workers as the job says, publish. The same call again resumes."""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypedDict

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.execution.nodes import Needs, alive, check_nodes, lost_since
from wavmill.pipeline.execution.ray_executor import actor_beside_driver, ship_outside_classes
from wavmill.pipeline.execution.resources import Node, nodes_of
from wavmill.pipeline.execution.worker_errors import expected, first_sentence, one_line, ray_error_in
from wavmill.pipeline.job.training_job import TrainJob
from wavmill.pipeline.model_json import MetricsLine, PublishedModel
from wavmill.pipeline.protocol.published import find_model
from wavmill.pipeline.training.checkpoints import ReadCheckpoint, read_latest
from wavmill.pipeline.training.finite import Diverged
from wavmill.pipeline.training.initial_weights import check_start
from wavmill.pipeline.training.loop import Learner, Tell
from wavmill.pipeline.training.release import published_by, release
from wavmill.pipeline.training.resume_point import carry_over
from wavmill.pipeline.workspace import TrainWorkspace

if TYPE_CHECKING:
    from ray.actor import ActorHandle

RETRIES = 3  # restarts of all workers after one died, from the last checkpoint
POLL_S = 0.5  # the interval of fetching the workers' lines
CHECK_NODES_S = 5.0  # without a line, until the driver checks all nodes, and again
REPEAT_S = 300.0  # until the same warning is shown again


def train(work: TrainWorkspace, connect: Callable[[], object], watch: Tell = lambda line: None) -> PublishedModel:
    """Train and publish the job of ``resume_point.begin(job, write=True)``; return model.json.

    ``connect`` is called when Ray is needed, ``watch`` with each line of metrics.
    """
    job, store, run = work.job, work.store, work.run
    if (
        model := published_by(store, job.name, run)
    ) is not None:  # another driver may have published it in the meantime
        return model
    pack = job.model.prepare(store, job.data, job.pack)
    check_start(job, pack.codes, pack.codebook, tuple(pack.labels))
    carry_over(work)
    last = _ended(work)
    if last is None:
        if job.scale.workers == 0:
            alone(job, pack.fingerprint, run, watch)
        else:
            connect()
            starts = [partial(find_model, origin)] if (origin := job.train.starts_from) else []
            check_nodes(Needs(job.store, looks=starts))
            together(job, pack.fingerprint, run, watch)
        last = _ended(work)  # the workers' last checkpoint
    if last is None:
        raise Stopped(f"{job.address}: the training ended without its last checkpoint; run the same command again")
    return release(work, pack, last)


def _ended(work: TrainWorkspace) -> ReadCheckpoint | None:
    """The last checkpoint of a training that has ended; None while it has not."""
    last = read_latest(work.store, work.run)
    return last if last is not None and last.record.stopped else None


def alone(job: TrainJob, pack: str, run: str, watch: Tell) -> None:
    """Train in this process, on one thread, as a worker does."""
    from wavmill.model.net import one_thread

    with one_thread():
        Learner(job, pack, run, tell=watch).learn()


def together(job: TrainJob, pack: str, run: str, watch: Tell) -> None:
    """Train on workers of Ray Train. Their lines come through an actor; resuming needs nothing of Ray."""
    workers, cpus, gpu = shares(job, nodes_of(ray))
    ship_outside_classes([job.model])
    lines = actor_beside_driver(Lines)
    options: WorkerOptions = {"job": job, "pack": pack, "run": run, "lines": lines, "threads": cpus}
    waits = partial(why_waiting, workers, cpus, gpu, alive())
    with tempfile.TemporaryDirectory() as scratch, forwarding(lines, watch, waits):
        trainer = TorchTrainer(
            train_on_worker,
            train_loop_config=options,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name=f"{run[:12]}-{datetime.now(UTC):%H%M%S%f}",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=RETRIES),
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            workers = error.worker_failures if isinstance(error, ray.train.WorkerGroupError) else {}
            failures = [error, *workers.values()]
            for failure in failures:
                if (cause := expected(failure)) is not None:
                    raise cause from None
            fault = next(filter(None, map(ray_error_in, failures)), None)
            what = one_line(fault) if fault is not None else first_sentence(str(error))
            raise Stopped(
                f"a worker failed {RETRIES + 1} times; run the same command again to go on: {what}"
            ) from error
    if result.return_value:
        raise Diverged(result.return_value)


class WorkerOptions(TypedDict):
    job: TrainJob
    pack: str  # its fingerprint
    run: str
    lines: "ActorHandle"  # of Lines
    threads: int


def train_on_worker(options: WorkerOptions) -> str:
    """The function of each worker. Returns why the training diverged, else "".

    Returned, not raised: Ray Train would start the workers again, and they would diverge again.
    """
    import torch

    torch.set_num_threads(options["threads"])
    context = ray.train.get_context()
    rank, world, lines = context.get_world_rank(), context.get_world_size(), options["lines"]
    learner = Learner(options["job"], options["pack"], options["run"], rank, world, lambda line: lines.put.remote(line))
    try:
        learner.learn()
    except Diverged as error:
        return str(error)
    return ""


class Lines:
    """A queue of lines of metrics, as an actor: rank 0 puts them, the driver takes them."""

    def __init__(self) -> None:
        self.queue: list[MetricsLine] = []

    def put(self, line: MetricsLine) -> None:
        self.queue.append(line)

    def take(self) -> list[MetricsLine]:
        lines, self.queue = self.queue, []
        return lines


@contextlib.contextmanager
def forwarding(lines: "ActorHandle", watch: Tell, waits: Callable[[], str]) -> Iterator[None]:
    """Call ``watch`` with the workers' lines in a thread, as trainer.fit() needs the main thread.

    When there are none, a line says what the training waits for (``waits``).
    """
    over = threading.Event()

    def poll() -> None:
        last_line_s = checked_s = monotonic()
        warned_s = -REPEAT_S
        while True:
            last = over.wait(POLL_S)
            for line in ray.get(lines.take.remote()):
                watch(line)
                last_line_s, warned_s = monotonic(), -REPEAT_S
            if last:
                return
            now_s = monotonic()
            if now_s - max(last_line_s, checked_s) > CHECK_NODES_S and now_s - warned_s > REPEAT_S:
                checked_s = now_s
                if why := waits():
                    warned_s = now_s
                    watch({"kind": "waiting", "why": why})

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def shares(job: TrainJob, nodes: Sequence[Node]) -> tuple[int, int, bool]:
    """How many workers, how many CPUs each, and whether each has a GPU, on a cluster of these nodes.

    Stopped when they would wait for ever; a worker needs its CPUs and GPU on one node.
    """
    gpus = sum(int(node.gpus) for node in nodes)
    workers = max(1, gpus) if job.scale.workers == "auto" else job.scale.workers
    if job.scale.cpus != "auto":
        each = job.scale.cpus
    else:
        each = 1 if gpus else next((cpus for cpus in range(_most(nodes), 1, -1) if _room(nodes, cpus) >= workers), 1)
    if (room := _room(nodes, each, bool(gpus))) < workers:
        has = ", ".join(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes[:4])
        raise Stopped(
            f"scale: {workers} workers of {each} CPUs {'and a GPU ' if gpus else ''}each would wait for ever: the "
            f"nodes have room for {room} ({has}{', ...' if len(nodes) > 4 else ''})"
        )
    return workers, each, bool(gpus)


def why_waiting(workers: int, cpus: int, gpu: bool, before: set[str]) -> str:
    """Why so many workers cannot start, or "" when the nodes have room for them.

    ``before``: the names of the nodes that were alive when the training began.
    """
    nodes = nodes_of(ray)
    if (room := _room(nodes, cpus, gpu)) >= workers:
        return ""
    lost = lost_since(before)
    each = f"{cpus} CPUs {'and a GPU ' if gpu else ''}each"
    return (
        f"{', '.join(lost) or 'a node'} is lost; {workers} workers of {each} need room, and the nodes left have it for "
        f"{room}: the training waits for a node, and goes on from its last checkpoint"
    )


def _most(nodes: Sequence[Node]) -> int:
    return int(max((node.cpus for node in nodes), default=1))


def _room(nodes: Sequence[Node], cpus: int, gpu: bool = False) -> int:
    """How many workers of so many CPUs, and a GPU if asked for, the nodes hold."""
    return sum(min(int(node.cpus // cpus), int(node.gpus)) if gpu else int(node.cpus // cpus) for node in nodes)
