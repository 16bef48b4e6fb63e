"""Which part of a cluster each stage takes: the autos of ``scale``, by what the cluster has. Never a result."""

from dataclasses import dataclass
from typing import Any

from pipeline.job import Job

GIB = 1 << 30
TASK_CPUS = 0.5  # two tasks a core: while one waits for the store or for Ray's driver, the other computes
NET_CPUS = 1.0  # a task whose net wants a GPU where there is none: it waits for nothing, and each holds its weights
RETRIES = 3  # Ray's default is to restart a worker that dies for ever
IN_FLIGHT = 3  # copies of a shard that a stage may hold at once: what it got, what it makes, what it hands on
MEMORY_SHARE = 0.6  # of the cluster's memory for the pool; the rest is for decoding


@dataclass(frozen=True)
class Shares:
    """What a run asks Ray for. cpus and gpus are per task or worker, memory_bytes of every stage alike.

    ``pool_workers`` is 0 when extraction runs in tasks, as decoding does. Ray then fuses all stages into one task per
    shard, and neither sound nor features leave its process; an extractor on a GPU needs a pool that keeps its model.
    """

    pool_workers: int
    feature_cpus: float
    feature_gpus: float
    decode_cpus: float
    token_cpus: float
    memory_bytes: int
    gpu_kinds: tuple[str, ...]

    def decode(self) -> dict[str, Any]:
        """Options of the decoding tasks: on the nodes with the GPUs, for sound costs more to send than to make."""
        beside = {"ray.io/accelerator-type": f"in({','.join(self.gpu_kinds)})"}
        where = {"label_selector": beside} if self.feature_gpus and self.gpu_kinds else {}
        return self._tasks(self.decode_cpus) | where

    def feature(self) -> dict[str, Any]:
        """Options of the extractors: tasks, or a pool of workers that each load the model once."""
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

    def rest(self) -> dict[str, Any]:
        """Options of the tasks that quantise, cut windows and commit."""
        return self._tasks(self.token_cpus)

    def _tasks(self, cpus: float) -> dict[str, Any]:
        return {"num_cpus": cpus, "memory": self.memory_bytes, "max_retries": RETRIES}


def shares_of(
    job: Job, cpus: float, gpus: float, memory_bytes: float, shard_bytes: int, gpu_kinds: list[str]
) -> Shares:
    """The autos of a job's ``scale`` on a cluster of this size: a GPU per extractor that wants one, else tasks."""
    scale = job.scale
    wants_gpu = bool(gpus) and getattr(job.feature, "gpu", False)
    feature_gpus = _or(scale.feature.gpus, 1.0 if wants_gpu else 0.0)
    memory = min(IN_FLIGHT * shard_bytes, int(memory_bytes * 0.2))
    workers = 0
    if feature_gpus:
        workers = min(int(gpus / feature_gpus), int(memory_bytes * MEMORY_SHARE // max(memory, 1)))
    workers = int(_or(scale.feature.workers, max(1, workers) if feature_gpus else 0))
    task_cpus = NET_CPUS if getattr(job.feature, "gpu", False) and not workers else TASK_CPUS
    return Shares(
        pool_workers=workers,
        feature_cpus=_or(scale.feature.cpus, 0.0 if feature_gpus else task_cpus),
        feature_gpus=feature_gpus,
        decode_cpus=_or(scale.decode.cpus, task_cpus),
        token_cpus=_or(scale.token.cpus, task_cpus),
        memory_bytes=memory,
        gpu_kinds=tuple(gpu_kinds),
    )


def fits(shares: Shares, cpus: float, gpus: float) -> str:
    """Why a run with these shares would wait for ever on a cluster of this size, or ""."""
    left = cpus - shares.pool_workers * shares.feature_cpus
    needed = max(shares.decode_cpus, shares.token_cpus, 0.0 if shares.pool_workers else shares.feature_cpus)
    if shares.pool_workers * shares.feature_gpus > gpus:
        return f"{shares.pool_workers} extractors of {shares.feature_gpus:g} GPU, and the cluster has {gpus:g}"
    if left < needed:
        return f"the extractors leave {left:g} of {cpus:g} CPUs, and the tasks beside them need {needed:g}"
    return ""


def _or(given: Any, auto: float) -> float:
    return auto if given == "auto" else float(given)
