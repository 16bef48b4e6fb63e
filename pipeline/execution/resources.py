"""What each stage gets of a cluster: resolves the ``auto`` values of ``scale``. It does not change results."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from types import ModuleType
from typing import Any

from wavmill.pipeline.job.dataset_job import Job

GIB = 1 << 30
TASK_CPUS = 0.5  # two tasks a core: while one waits for the store or for Ray's driver, the other computes
NET_CPUS = 1.0  # a task with a net on the CPU: it does not wait, and each holds the weights
RETRIES = 3  # Ray's default is to restart a dying worker for ever
IN_FLIGHT = 3  # copies of a shard in a stage: input, work, output
MEMORY_SHARE = 0.6  # of the cluster's memory for the pool; the rest is for decoding


@dataclass(frozen=True)
class Node:
    """The resources of one node. ``gpu_kind``: Ray's name of its accelerators, "" without any."""

    cpus: float
    gpus: float = 0.0
    memory_bytes: float = float(GIB)
    gpu_kind: str = ""

    def room(self, shares: "Shares", left_cpus: float = 0.0) -> int:
        """How many extractors fit on it beside tasks that take ``left_cpus``; all, when they ask for nothing."""
        cpus, gpus = self.cpus - left_cpus, self.gpus
        by_cpus = cpus // shares.feature_cpus if shares.feature_cpus else inf
        by_gpus = gpus // shares.feature_gpus if shares.feature_gpus else inf
        return int(max(0.0, min(shares.pool_workers, by_cpus, by_gpus)))


def nodes_of(ray: ModuleType) -> list[Node]:
    """The live nodes of the cluster that Ray is connected to."""
    found = []
    for node in ray.nodes():
        has = node["Resources"]
        kind = next((name.partition(":")[2] for name in has if name.startswith("accelerator_type:")), "")
        if node["Alive"]:
            found.append(Node(has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", float(GIB)), kind))
    return found


@dataclass(frozen=True)
class Shares:
    """What a run asks Ray for. cpus and gpus are per task or worker; memory_bytes is the same for every stage.

    ``pool_workers`` is 0 when extraction runs in tasks: Ray then fuses all stages into one task per shard, and sound
    and features stay in one process. An extractor on a GPU needs a pool of actors that keep its model.
    """

    pool_workers: int
    feature_cpus: float
    feature_gpus: float
    decode_cpus: float
    token_cpus: float
    memory_bytes: int
    gpu_kinds: tuple[str, ...]

    def decode(self) -> dict[str, object]:
        """Options of the decoding tasks: on the nodes with GPUs, as sending sound costs more than decoding it."""
        beside = {"ray.io/accelerator-type": f"in({','.join(self.gpu_kinds)})"}
        where = {"label_selector": beside} if self.feature_gpus and self.gpu_kinds else {}
        return self._tasks(self.decode_cpus) | where

    def feature(self) -> dict[str, object]:
        """Options of the extractors: tasks, or a pool of actors that each load the model once."""
        if not self.pool_workers:
            return self._tasks(self.feature_cpus)
        from ray.data import ActorPoolStrategy

        return {
            "compute": ActorPoolStrategy(size=self.pool_workers),
            "num_cpus": self.feature_cpus,
            "memory": self.memory_bytes,
            "max_restarts": RETRIES,
            "max_task_retries": RETRIES,
            **({"num_gpus": self.feature_gpus} if self.feature_gpus else {}),
        }

    def rest(self) -> dict[str, object]:
        """Options of the tasks that quantise, cut windows and commit."""
        return self._tasks(self.token_cpus)

    def _tasks(self, cpus: float) -> dict[str, object]:
        return {"num_cpus": cpus, "memory": self.memory_bytes, "max_retries": RETRIES}


def shares_of(job: Job, nodes: Sequence[Node], shard_bytes: int) -> Shares:
    """Resolve a job's ``scale`` on these nodes: a GPU per extractor that uses one, else tasks.

    ``shard_bytes``: the size of the widest column of the longest shard.
    """
    scale, gpus = job.scale, sum(node.gpus for node in nodes)
    net = any(step.gpu for step in job.steps)
    feature_gpus = _or(scale.feature.gpus, 1.0 if gpus and net else 0.0)
    smallest = min((node.memory_bytes for node in nodes), default=GIB)  # a task has to fit into one node
    memory = min(IN_FLIGHT * shard_bytes, int(smallest * 0.2))
    workers = 0
    if feature_gpus:
        by_memory = sum(int(node.memory_bytes * MEMORY_SHARE // max(memory, 1)) for node in nodes)
        workers = min(sum(int(node.gpus / feature_gpus) for node in nodes), by_memory)
    workers = int(_or(scale.feature.workers, max(1, workers) if feature_gpus else 0))
    task_cpus = NET_CPUS if net and not workers else TASK_CPUS
    return Shares(
        pool_workers=workers,
        feature_cpus=_or(scale.feature.cpus, 0.0 if feature_gpus else task_cpus),
        feature_gpus=feature_gpus,
        decode_cpus=_or(scale.decode.cpus, task_cpus),
        token_cpus=_or(scale.token.cpus, task_cpus),
        memory_bytes=memory,
        gpu_kinds=tuple(sorted({node.gpu_kind for node in nodes if node.gpu_kind})),
    )


def why_waiting(shares: Shares, nodes: Sequence[Node]) -> str:
    """Why a run with these shares would wait for ever on these nodes, or "" when it would not.

    A task or a worker runs on one node, so each node counts by itself.
    """
    needed = max(shares.decode_cpus, shares.token_cpus, 0.0 if shares.pool_workers else shares.feature_cpus)
    largest = max((node.cpus for node in nodes), default=0.0)
    if needed > largest:
        return f"a task asks for {needed:g} CPUs, and the largest node has {largest:g}"
    room = sum(node.room(shares) for node in nodes)
    if room < shares.pool_workers:
        each = f"{shares.feature_cpus:g} CPUs and {shares.feature_gpus:g} GPUs"
        return f"{shares.pool_workers} extractors of {each} each, and the nodes have room for {room}"
    if not any(
        node.cpus >= needed and room - node.room(shares) + node.room(shares, needed) >= shares.pool_workers
        for node in nodes
    ):
        return f"the extractors leave no node the {needed:g} CPUs that the tasks beside them need"
    return ""


def _or(given: Any, auto: float) -> float:
    return auto if given == "auto" else float(given)
