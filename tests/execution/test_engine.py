"""Which executor a job gets, with how many workers: by its work, the machine and what the job says."""

import pytest
from inline import words

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.execution import engine
from wavmill.pipeline.execution.engine import ALONE_S, ARITHMETIC_SPEED, LOCAL_S, NET_SPEED, Chosen, Machine, choose
from wavmill.pipeline.features import EXTRACTORS

TWO, GPU = Machine(2, 16 << 30), Machine(16, 128 << 30, ("0",))


def chosen(job, seconds, machine=TWO, on=None, cluster=False) -> Chosen:
    return choose(job, seconds, on, cluster or bool(on), machine)


@pytest.fixture
def arithmetic(corpus, tmp_path):
    return words(corpus, tmp_path / "store")


@pytest.fixture
def net(arithmetic):
    feature = EXTRACTORS["hubert"](model="some/model", sha256="0" * 64, dtype="float32", dim=768, layer=9)
    return arithmetic.model_copy(update={"feature": feature})


def scaled(job, **options):
    return job.model_copy(update={"scale": type(job.scale).model_validate(options)})


def test_little_work_is_done_by_this_machine_and_much_by_ray(arithmetic, net):
    assert chosen(arithmetic, 52 * 60).engine == "local"  # 600 clips
    for job, speed in ((arithmetic, ARITHMETIC_SPEED), (net, NET_SPEED)):
        assert chosen(job, 2 * LOCAL_S * speed * 0.99).engine == "local"
        assert chosen(job, 2 * LOCAL_S * speed * 1.01).engine == "ray"


def test_hardly_any_work_needs_no_worker(arithmetic):
    assert chosen(arithmetic, ALONE_S * ARITHMETIC_SPEED * 0.99).workers == 0
    assert chosen(arithmetic, ALONE_S * ARITHMETIC_SPEED * 1.01).workers == 2
    assert chosen(scaled(arithmetic, feature={"workers": 3}), 1.0).workers == 3


def test_a_cluster_and_a_gpu_mean_ray(arithmetic, net):
    assert chosen(arithmetic, 1.0, on="head:6379").engine == "ray"
    assert chosen(arithmetic, 1.0, cluster=True).engine == "ray"
    assert chosen(net, 1.0, GPU).engine == "ray" and chosen(arithmetic, 1.0, GPU).engine == "local"
    assert chosen(net, 1.0).engine == "local"


def test_what_the_job_says_is_done(arithmetic, net):
    assert chosen(scaled(arithmetic, engine="ray"), 1.0).engine == "ray"
    assert chosen(scaled(net, engine="local"), 1e9, GPU).workers == 1  # there is one GPU
    assert chosen(scaled(arithmetic, engine="local"), 1.0, cluster=True).engine == "local"
    with pytest.raises(JobError, match=r"scale\.engine is local, and --on head:6379 names a Ray cluster"):
        chosen(scaled(arithmetic, engine="local"), 1.0, on="head:6379")


@pytest.mark.parametrize(
    ("machine", "cpus", "workers", "threads"),
    [
        (Machine(8, 64 << 30), "auto", 8, 1),
        (Machine(8, 64 << 30), 2, 4, 2),
        (Machine(8, 64 << 30), 0.5, 8, 1),
        (Machine(64, 8 << 30), "auto", 6, 1),
        (Machine(1, 1 << 30), "auto", 1, 1),
    ],
)
def test_workers_fit_into_the_cpus_and_the_memory(arithmetic, machine, cpus, workers, threads):
    found = chosen(scaled(arithmetic, feature={"cpus": cpus}), 1e5, machine)
    assert (found.workers, found.threads) == (workers, threads)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 64), ("200000 100000", 2), ("150000 50000", 3), ("5000 100000", 1), ("9900000 100000", 64)],
)
def test_a_container_s_share_of_the_cpus_is_what_this_machine_has(tmp_path, monkeypatch, quota, cpus):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(engine, "CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(engine.sys, "platform", "linux")
    assert engine.this_machine().cpus == cpus


def test_the_executor_is_the_chosen_one(arithmetic, net, monkeypatch):
    from wavmill.pipeline.execution.local_executor import LocalExecutor
    from wavmill.pipeline.execution.ray_executor import RayExecutor

    monkeypatch.setattr(engine, "this_machine", lambda: Machine(4, 64 << 30, ("1", "3")))
    assert isinstance(engine.executor_of(arithmetic, 1.0, "head:6379", True, dict), RayExecutor)
    for job, gpus in ((arithmetic, ()), (scaled(net, engine="local"), ("1", "3"))):
        made = engine.executor_of(job, ALONE_S * ARITHMETIC_SPEED * 2, None, False, dict, verbose=True)
        wanted = chosen(job, ALONE_S * ARITHMETIC_SPEED * 2, Machine(4, 64 << 30, ("1", "3")))
        assert isinstance(made, LocalExecutor) and (made.gpus, made.verbose) == (gpus, True)
        assert (made.workers, made.threads) == (wanted.workers, wanted.threads)
