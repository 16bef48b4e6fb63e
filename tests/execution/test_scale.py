"""Who gets which part of a cluster: arithmetic on the job's ``scale`` and what the cluster has."""

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import training

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.execution.resources import GIB, RETRIES, Node, Shares, shares_of, why_waiting
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.training.train import shares as train_shares


class OnGpu(Mel):
    gpu: ClassVar[bool] = True


def nodes_like(cpus=8.0, gpus=0.0, memory_gib=64.0, kinds=("",)):
    """A cluster of as many equal nodes as kinds are named."""
    return [Node(cpus / len(kinds), gpus / len(kinds), memory_gib * GIB / len(kinds), kind) for kind in kinds]


def shares(feature=None, nodes=None, shard_gib=0.25, scale="{}", **size):
    text = f"name: a\nsource: {{kind: files, path: x}}\nfeature: {{kind: mel}}\nstore: y\nscale: {scale}\n"
    job = parse_job(text).model_copy(update={"feature": feature or Mel()})
    return shares_of(job, nodes_like(**size) if nodes is None else nodes, int(shard_gib * GIB))


def test_an_extractor_on_the_cpu_runs_in_tasks_like_those_around_it_so_that_ray_fuses_them():
    made = shares(gpus=4.0)
    assert made.pool_workers == 0
    assert made.decode() == made.feature() == made.rest()


def test_a_task_asks_for_its_cpus_and_for_the_memory_of_its_shard():
    made = shares(scale="{feature: {cpus: 2}, token: {cpus: 0.5}}")
    assert made.feature() == {"num_cpus": 2.0, "memory": made.memory_bytes, "max_retries": RETRIES}
    assert made.rest() == {"num_cpus": 0.5, "memory": made.memory_bytes, "max_retries": RETRIES}
    assert made.memory_bytes >= 0.25 * GIB


def test_an_extractor_that_wants_a_gpu_gets_one_each_and_takes_no_cpu_from_decoding():
    made = shares(OnGpu(), gpus=4.0)
    assert (made.pool_workers, made.feature_gpus, made.feature_cpus) == (4, 1.0, 0.0)
    assert made.feature()["num_gpus"] == 1.0


def test_an_extractor_that_wants_a_gpu_runs_in_tasks_where_there_is_none():
    assert shares(OnGpu()).pool_workers == 0


def test_a_node_of_which_nothing_but_its_cpus_is_known_has_no_gpu():
    made = shares(OnGpu(), [Node(8.0)] * 2)
    assert (made.pool_workers, made.feature_gpus, made.gpu_kinds) == (0, 0.0, ())


def test_half_a_gpu_each_puts_two_extractors_on_one():
    assert shares(OnGpu(), gpus=2.0, scale="{feature: {gpus: 0.5}}").pool_workers == 4


def test_decoding_runs_on_the_nodes_with_the_gpus():
    wanted = {"ray.io/accelerator-type": "in(A10G,H100)"}
    assert shares(OnGpu(), gpus=2.0, kinds=("A10G", "H100")).decode()["label_selector"] == wanted
    assert "label_selector" not in shares(gpus=2.0, kinds=("H100",)).decode()


def test_the_memory_asked_for_never_adds_up_to_more_than_the_cluster_has():
    made = shares(OnGpu(), gpus=8.0, memory_gib=4.0, shard_gib=1.0)
    assert made.memory_bytes * (made.pool_workers + 1) <= 4 * GIB


def test_a_task_s_memory_fits_into_the_smallest_node_of_a_large_cluster():
    nodes = [Node(8.0, memory_bytes=2 * GIB)] * 40
    assert shares(nodes=nodes, shard_gib=1.0).memory_bytes <= 2 * GIB


CLUSTERS = st.lists(
    st.builds(Node, cpus=st.sampled_from([1.0, 2.0, 4.0, 64.0]), gpus=st.sampled_from([0.0, 1.0, 8.0])), min_size=1
)


@settings(deadline=None, max_examples=100)
@given(CLUSTERS, st.sampled_from([Mel(), OnGpu()]))
def test_the_autos_never_wait_for_ever(nodes, feature):
    assert why_waiting(shares(feature, nodes), nodes) == ""


@settings(deadline=None, max_examples=200)
@given(
    CLUSTERS,
    st.builds(
        Shares,
        pool_workers=st.integers(0, 4),
        feature_cpus=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        feature_gpus=st.sampled_from([0.0, 0.5, 1.0]),
        decode_cpus=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
        token_cpus=st.just(0.5),
        memory_bytes=st.just(1),
        gpu_kinds=st.just(()),
    ),
)
def test_what_waits_for_ever_is_what_no_placement_on_single_nodes_can_hold(nodes, made):
    """Against trying every placement of the extractors and one task, node by node."""
    nodes = nodes[:4]
    needed = max(made.decode_cpus, made.token_cpus, 0.0 if made.pool_workers else made.feature_cpus)

    def placed(workers, left):
        if not workers:
            return any(cpus >= needed for cpus, _ in left)
        each = made.feature_cpus, made.feature_gpus
        return any(
            placed(workers - 1, [*left[:i], (cpus - each[0], gpus - each[1]), *left[i + 1 :]])
            for i, (cpus, gpus) in enumerate(left)
            if cpus >= each[0] and gpus >= each[1]
        )

    assert (why_waiting(made, nodes) == "") == placed(made.pool_workers, [(n.cpus, n.gpus) for n in nodes])


@pytest.mark.parametrize(
    ("scale", "nodes", "reason"),
    [
        ("{decode: {cpus: 2}}", [Node(1.0), Node(1.0)], "a task asks for 2 CPUs, and the largest node has 1"),
        ("{feature: {workers: 1, cpus: 2}}", [Node(1.0), Node(1.0)], "room for 0"),
        ("{feature: {workers: 2, cpus: 1}}", [Node(2.0)], "leave no node the 0.5 CPUs"),
    ],
)
def test_a_request_is_compared_with_each_node_and_not_with_the_sum(scale, nodes, reason):
    assert reason in why_waiting(shares(nodes=nodes, scale=scale), nodes)


def test_a_named_number_of_workers_is_taken_at_its_word():
    assert shares(cpus=0.0, scale="{feature: {workers: 16}}").pool_workers == 16


# ---- the workers of a training -----------------------------------------------------------------------------------


def team(nodes, scale="{}"):
    return train_shares(training("data", "store", f"scale={scale}"), nodes)


@pytest.mark.parametrize(
    ("cpus", "scale", "workers", "each"),
    [
        ([1.0, 1.0], "{}", 1, 1),
        ([1.0, 4.0], "{}", 1, 4),
        ([8.0], "{workers: 2}", 2, 4),
        ([3.0, 3.0, 3.0], "{workers: 4}", 4, 1),
        ([2.0, 8.0], "{workers: 5}", 5, 2),
        ([1.0, 1.0], "{workers: 2, cpus: 1}", 2, 1),
    ],
)
def test_a_training_asks_each_node_for_no_more_than_it_has(cpus, scale, workers, each):
    assert team([Node(one) for one in cpus], scale) == (workers, each, False)


def test_a_training_takes_a_gpu_for_each_worker():
    assert team([Node(8.0, 2.0), Node(8.0, 1.0)]) == (3, 1, True)


@pytest.mark.parametrize(
    ("nodes", "scale", "room"),
    [
        ([Node(1.0), Node(1.0)], "{workers: 1, cpus: 2}", 0),
        ([Node(2.0), Node(2.0)], "{workers: 3, cpus: 2}", 2),
        ([Node(1.0, 8.0), Node(64.0)], "{}", 1),
    ],
)
def test_a_training_that_would_wait_for_ever_says_what_the_nodes_hold(nodes, scale, room):
    with pytest.raises(Stopped, match=f"would wait for ever: the nodes have room for {room} "):
        team(nodes, scale)
