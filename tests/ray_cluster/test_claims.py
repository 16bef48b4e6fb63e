"""Which claims on a cluster are of drivers that have ended."""

from hypothesis import given
from hypothesis import strategies as st

from wavmill.pipeline.execution.claims import dead_claims

jobs = st.sampled_from(["01000000", "02000000", "0a0000ff"])
ours = st.tuples(jobs, st.integers(0, 9)).map(lambda one: f"data-wavmill-{one[0]}_{one[1]}")
others = st.sampled_from(["data-dataset_1", "data-wavmill-_0", "train-wavmill-01000000_0", "data-wavmill-01000000"])


@given(st.lists(ours), st.lists(others), st.sets(jobs))
def test_only_our_claims_of_ended_drivers_are_dead(ours, others, dead):
    found = dead_claims([*others, *ours], dead)
    assert found == [claim for claim in ours if claim.removeprefix("data-wavmill-").partition("_")[0] in dead]
