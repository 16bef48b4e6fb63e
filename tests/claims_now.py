"""Waits for a claim on a cluster's CPUs, tells of it, and withdraws the dead ones when it is told to.

Each line of its output is JSON: the claims that Ray Data holds; then how many of others are left, and the claims.
"""

import json
import sys
import time

import ray

from cluster.connect import connect
from pipeline import claims


def held() -> list[str]:
    coordinator = ray.get_actor(claims.ACTOR, namespace=claims.ACTOR)
    found: list[str] = ray.get(coordinator.__ray_call__.remote(lambda one: [*one._ongoing_reqs]))
    return found


if __name__ == "__main__":
    connect()
    while not (found := held()):
        time.sleep(0.2)
    print(json.dumps(found), flush=True)
    sys.stdin.readline()
    print(json.dumps([held(), claims.end_dead_claims(), held()]), flush=True)
