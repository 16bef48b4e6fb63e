"""Which part of a cluster each stage takes: the autos of ``scale``, by what the cluster has. Never a result."""

from dataclasses import dataclass
from typing import Any

from pipeline.job import Job

GIB = 1 << 30
RETRIES = 3  # Ray's default is to restart a worker that dies for ever
IN_FLIGHT = 3  # copies of a shard that a stage may hold at once: what it got, what it makes, what it hands on


@dataclass(frozen=True)
class Shares:
    """What a run asks Ray for. cpus and gpus are per worker, memory_bytes per task or worker of every stage."""

    feature_workers: int
    feature_cpus: float
    feature_gpus: float
    decode_cpus: float
    token_cpus: float
    memory_bytes: int
    gpu_kinds: tuple[str, ...]

    def pool(self) -> dict[str, Any]:
        """The extractors' options for Ray Data: a pool of workers that each load the model once."""
        from ray.data import ActorPoolStrategy

        options: dict[str, Any] = {
            "compute": ActorPoolStrategy(size=self.feature_workers),
            "num_cpus": self.feature_cpus,
        }
        if self.feature_gpus:
            options["num_gpus"] = self.feature_gpus
        return {**options, "max_restarts": RETRIES, "max_task_retries": RETRIES}

    def beside_gpus(self) -> dict[str, Any]:
        """Decoding's option: on the nodes with the GPUs, for float32 sound costs more to send than to make."""
        if not (self.feature_gpus and self.gpu_kinds):
            return {}
        return {"label_selector": {"ray.io/accelerator-type": f"in({','.join(self.gpu_kinds)})"}}

    def said(self) -> str:
        device = f"{self.feature_gpus:g} GPU" if self.feature_gpus else f"{self.feature_cpus:g} CPU"
        return f"{self.feature_workers} extractors of {device}, decoding in tasks of {self.decode_cpus:g} CPU"


def shares_of(
    job: Job, cpus: float, gpus: float, memory_bytes: float, shard_bytes: int, gpu_kinds: list[str]
) -> Shares:
    """The autos of a job's ``scale`` on a cluster of this size.

    Extractors on the CPU ask for half a core each and there are as many as cores, so that they never take every
    CPU from the tasks that feed them; the operating system shares out the rest. On GPUs, one extractor each.
    """
    scale, wants_gpu = job.scale, bool(gpus) and getattr(job.feature, "gpu", False)
    feature_gpus = _or(scale.feature.gpus, 1.0 if wants_gpu else 0.0)
    feature_cpus = _or(scale.feature.cpus, 0.0 if feature_gpus else 0.5)
    memory = min(IN_FLIGHT * shard_bytes, int(memory_bytes * 0.2))
    workers = int(gpus / feature_gpus) if feature_gpus else int(cpus)
    room = int(memory_bytes * 0.6 // max(memory, 1))  # the rest is for decoding
    if feature_cpus:
        room = min(room, int((cpus - 0.5) / feature_cpus))  # half a core at least stays for the other stages
    return Shares(
        feature_workers=int(_or(scale.feature.workers, max(1, min(workers, room)))),
        feature_cpus=feature_cpus,
        feature_gpus=feature_gpus,
        decode_cpus=_or(scale.decode.cpus, 0.5 if cpus <= 4 else 1.0),
        token_cpus=_or(scale.token.cpus, 0.25),
        memory_bytes=memory,
        gpu_kinds=tuple(gpu_kinds),
    )


def fits(shares: Shares, cpus: float, gpus: float) -> str:
    """Why a run with these shares would wait for ever on this cluster, or ""."""
    left = cpus - shares.feature_workers * shares.feature_cpus
    if shares.feature_workers * shares.feature_gpus > gpus:
        return f"{shares.feature_workers} extractors of {shares.feature_gpus:g} GPU, and the cluster has {gpus:g}"
    if left < max(shares.decode_cpus, shares.token_cpus):
        return f"the extractors take all but {left:g} of {cpus:g} CPUs, and decoding needs {shares.decode_cpus:g}"
    return ""


def _or(given: Any, auto: float) -> float:
    return auto if given == "auto" else float(given)
