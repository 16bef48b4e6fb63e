"""End the claims on a cluster's CPUs that killed runs left behind, before a new run starts.

Ray Data keeps every execution's claim in an actor of the cluster, splits each node's CPUs evenly among the claims,
rounded down, and forgets the claim of a driver that was killed only after 180 s.
"""

import re
from typing import Any

ACTOR = "AutoscalingCoordinator"  # its name and its namespace
ANSWER_S = 10.0  # for the actor to list its claims
OURS = re.compile(
    r"data-wavmill-([0-9a-f]{8,})_"
)  # with the ID of its Ray job, which tells whether its driver still runs


def execution_name() -> str:
    """A name for an execution of Ray Data that contains the ID of its Ray job."""
    import ray

    return f"wavmill-{ray.get_runtime_context().get_job_id()}"


def end_dead_claims() -> int:
    """End the claims of wavmill drivers that no longer run; return how many claims of others are left.

    Returns 0 and ends nothing when this version of Ray keeps its claims in an unknown way.
    """
    import ray

    try:
        coordinator = ray.get_actor(ACTOR, namespace=ACTOR)
        claims = ray.get(coordinator.__ray_call__.remote(_claimants), timeout=ANSWER_S)
        dead = dead_claims(claims, dead_jobs())
        ray.get([coordinator.cancel_request.remote(claim) for claim in dead], timeout=ANSWER_S)
    except (ValueError, AttributeError, TypeError, KeyError, ray.exceptions.RayError):
        return 0  # no actor: nothing of Ray Data has run there yet
    mine = f"data-{execution_name()}_"
    return sum(claim not in dead and not claim.startswith(mine) for claim in claims)


def dead_claims(claims: list[str], dead: set[str]) -> list[str]:
    """The claims that name one of the dead jobs."""
    return [claim for claim in claims if (ours := OURS.match(claim)) and ours[1] in dead]


def dead_jobs() -> set[str]:
    """The IDs of the cluster's jobs whose driver has ended, in hex."""
    from ray._private.state import jobs

    return {job["JobID"] for job in jobs() if job["IsDead"]}


def _claimants(coordinator: Any) -> list[str]:
    """Runs in the actor: the names of all claims."""
    return [*coordinator._ongoing_reqs]
