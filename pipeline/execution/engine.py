"""Choose the executor of a job, by an estimate of the work: workers of this machine, or Ray. Results are the same.

Starting Ray takes longer than processing a few minutes of sound. Ray is used for a cluster, and for long jobs.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.execution.resources import IN_FLIGHT, MEMORY_SHARE
from wavmill.pipeline.execution.stages import Executor
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.protocol.plan import SHARD_BYTES

NET_SPEED = 5.0  # seconds of sound per second and CPU: HuBERT Base in float32
ARITHMETIC_SPEED = 300.0  # decoding and MFCC
READ_SPEED = 3000.0  # a column of another dataset
LOCAL_S = 600.0  # on all CPUs: below it Ray is not started
ALONE_S = 4.0  # on one CPU: below it no workers are started
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # what a container may use: "QUOTA PERIOD", or "max PERIOD"


@dataclass(frozen=True)
class Machine:
    """What this process may use of its machine. ``gpus``: their CUDA names."""

    cpus: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """An engine. ``workers`` and ``threads`` are those of the local one; 0 workers: all work is done in the driver."""

    engine: str
    work_s: float
    workers: int = 0
    threads: int = 1

    def __str__(self) -> str:
        if self.engine == "ray":
            return "Ray"
        return f"{self.workers} worker{'s' * (self.workers != 1)} of this machine" if self.workers else "this process"


def choose(job: Job, seconds: float, on: str | None, cluster: bool, machine: Machine) -> Chosen:
    """Choose the engine for this many seconds of sound. ``on``: the cluster that was named; ``cluster``: is there one?

    JobError when scale.engine is local and a cluster was named.
    """
    asked = job.scale.engine
    if asked == "local" and on:
        raise JobError(f"scale.engine is local, and --on {on} names a Ray cluster; leave one of them out")
    net = any(step.gpu for step in job.steps)
    speed = NET_SPEED if net else ARITHMETIC_SPEED if job.source.gives == "audio" else READ_SPEED
    cpu_s = seconds / speed
    workers, threads = workers_of(job, machine)
    work_s = cpu_s / max(1, workers)
    gpu = machine.gpus and (net if job.scale.feature.gpus == "auto" else job.scale.feature.gpus > 0)
    if asked == "ray" or (asked == "auto" and (cluster or gpu or work_s > LOCAL_S)):
        return Chosen("ray", work_s)
    alone = cpu_s <= ALONE_S and job.scale.feature.workers == "auto"
    return Chosen("local", work_s, 0 if alone else workers, threads)


def workers_of(job: Job, machine: Machine) -> tuple[int, int]:
    """How many workers the machine's CPUs and memory allow, and how many threads each has."""
    shares = job.scale.decode, job.scale.feature, job.scale.token
    threads = max(1, round(max((one.cpus for one in shares if one.cpus != "auto"), default=1.0)))
    by_memory = int(machine.memory_bytes * MEMORY_SHARE / (IN_FLIGHT * SHARD_BYTES))
    workers = max(1, min(machine.cpus // threads, by_memory))
    if job.scale.feature.workers != "auto":
        return job.scale.feature.workers, threads
    if machine.gpus and any(step.gpu for step in job.steps):
        share = 1.0 if job.scale.feature.gpus == "auto" else job.scale.feature.gpus
        workers = min(workers, max(1, int(len(machine.gpus) / share))) if share else workers
    return workers, threads


def this_machine() -> Machine:
    """The CPUs and memory that affinity and cgroup allow this process, and the GPUs in CUDA_VISIBLE_DEVICES."""
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if CPU_MAX.exists() and (quota := CPU_MAX.read_text().split())[0] != "max":
        cpus = max(1, min(cpus, round(int(quota[0]) / int(quota[1]))))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    gpus = sorted(there) if visible is None else [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(cpus, memory_bytes, tuple(gpus if there else ()))


def executor_of(
    job: Job, seconds: float, on: str | None, cluster: bool, connect: Callable[[], object], verbose: bool = False
) -> Executor:
    """The executor for this many seconds of sound; ``connect`` is called to connect to Ray if Ray is chosen."""
    machine = this_machine()
    chosen = choose(job, seconds, on, cluster, machine)
    if chosen.engine == "ray":
        from wavmill.pipeline.execution.ray_executor import RayExecutor

        return RayExecutor(connect)
    from wavmill.pipeline.execution.local_executor import LocalExecutor

    gpus = machine.gpus if any(step.gpu for step in job.steps) else ()
    return LocalExecutor(chosen.workers, chosen.threads, gpus, verbose)
