"""Who gets which part of a cluster: arithmetic on the job's ``scale`` and what the cluster has."""

from typing import ClassVar

import pytest

from pipeline.features.mel import Mel
from pipeline.jobfile import parse_job
from pipeline.scale import GIB, fits, shares_of


class OnGpu(Mel):
    gpu: ClassVar[bool] = True


def shares(feature=None, cpus=8.0, gpus=0.0, memory_gib=64.0, shard_gib=0.25, scale="{}", kinds=()):
    text = f"name: a\nsource: {{kind: files, path: x}}\nfeature: {{kind: mel}}\nstore: y\nscale: {scale}\n"
    job = parse_job(text).model_copy(update={"feature": feature or Mel()})
    return shares_of(job, cpus, gpus, memory_gib * GIB, int(shard_gib * GIB), list(kinds))


def test_an_extractor_on_the_cpu_runs_in_tasks_like_those_around_it_so_that_ray_fuses_them():
    made = shares(gpus=4.0)
    assert made.pool_workers == 0
    assert made.decode() == made.feature() == made.rest()


def test_an_extractor_that_wants_a_gpu_gets_one_each_and_takes_no_cpu_from_decoding():
    made = shares(OnGpu(), gpus=4.0)
    assert (made.pool_workers, made.feature_gpus, made.feature_cpus) == (4, 1.0, 0.0)
    assert made.feature()["num_gpus"] == 1.0


def test_an_extractor_that_wants_a_gpu_runs_in_tasks_where_there_is_none():
    assert shares(OnGpu()).pool_workers == 0


def test_half_a_gpu_each_puts_two_extractors_on_one():
    assert shares(OnGpu(), gpus=2.0, scale="{feature: {gpus: 0.5}}").pool_workers == 4


def test_decoding_runs_on_the_nodes_with_the_gpus():
    wanted = {"ray.io/accelerator-type": "in(A10G,H100)"}
    assert shares(OnGpu(), gpus=2.0, kinds=("A10G", "H100")).decode()["label_selector"] == wanted
    assert "label_selector" not in shares(gpus=2.0, kinds=("H100",)).decode()


def test_the_memory_asked_for_never_adds_up_to_more_than_the_cluster_has():
    made = shares(OnGpu(), gpus=8.0, memory_gib=4.0, shard_gib=1.0)
    assert made.memory_bytes * (made.pool_workers + 1) <= 4 * GIB


@pytest.mark.parametrize("cpus", [1.0, 2.0, 64.0])
def test_the_autos_never_wait_for_ever(cpus):
    for feature, gpus in ((Mel(), 0.0), (OnGpu(), 0.0), (OnGpu(), 8.0)):
        assert fits(shares(feature, cpus=cpus, gpus=gpus), cpus, gpus) == ""


def test_a_pool_that_takes_every_cpu_is_said_to_wait_for_ever():
    made = shares(cpus=2.0, scale="{feature: {workers: 2, cpus: 1}}")
    assert "leave 0 of 2 CPUs" in fits(made, 2.0, 0.0)


def test_a_named_number_of_workers_is_taken_at_its_word():
    assert shares(cpus=0.0, scale="{feature: {workers: 16}}").pool_workers == 16
