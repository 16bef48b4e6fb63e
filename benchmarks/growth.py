"""How much memory and time it takes to find out what a grown corpus replaces: a plan of N files, and a second one in
which a share of them changed. The plans are made as tables, without files; each comparison is a process of its own.

python benchmarks/growth.py 1000000 0.01        # 10^6 files of which 1 % changed
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

SHARD_ROWS, FOLDER_FILES = 2000, 1000


def put_plan(url: str, number: int, rows: range, stamp: str) -> dict[str, Any]:
    from wavmill.pipeline.protocol.plan import put_table
    from wavmill.pipeline.store import open_store
    from wavmill.pipeline.store.objects import SCHEMA

    paths = [f"speaker{row // FOLDER_FILES:06d}/utterance{row % FOLDER_FILES:04d}.wav" for row in rows]
    count = len(paths)
    table = pa.table([paths, [128_044] * count, [stamp] * count, [0] * count, [-1] * count], schema=SCHEMA)
    return put_table(open_store(url), f"plan{number}", "objects", table)


def plans_of(put: list[dict[str, Any]]) -> list[Any]:
    from wavmill.pipeline.protocol.plan import SHARD_SCHEMA, Plan

    plans = []
    for number, objects in enumerate(put, 1):
        los = range(0, objects["rows"], SHARD_ROWS)
        his = [min(lo + SHARD_ROWS, objects["rows"]) for lo in los]
        columns = [[f"{number}-{lo}" for lo in los], list(los), his, [1.0] * len(los)]
        plans.append(Plan(number, {"objects": objects}, pa.table(columns, schema=SHARD_SCHEMA)))
    return plans


def compare(url: str, put: list[dict[str, Any]]) -> dict[str, Any]:
    """Look at every shard of both plans."""
    from wavmill.pipeline.store import open_store

    plans, start = plans_of(put), time.perf_counter()
    shards = [(plan.number, shard) for plan in plans for shard in plan.shards["shard"].to_pylist()]
    try:
        from wavmill.pipeline.protocol.superseded import Supersession
    except ImportError:  # as it was before
        from wavmill.pipeline.protocol.superseded import superseded

        choice = {"shards": [[plan, shard, ""] for plan, shard in shards]}
        gone = superseded(open_store(url), plans, choice, [])
        count = len(gone)
    else:
        job: Any = SimpleNamespace(source=SimpleNamespace(gives="audio"))
        growth = Supersession(open_store(url), job, plans, [])
        count = sum(growth.superseded(shard) is not None for _, shard in shards)
        growth.listed()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "shards": len(shards),
        "with": count,
        "s": round(time.perf_counter() - start, 1),
        "peak_mib": round(peak_mib),
    }


if __name__ == "__main__":
    if sys.argv[1] == "put":
        files, share = int(sys.argv[3]), float(sys.argv[4])
        changed = range(0, files, max(1, round(1 / share)))
        print(json.dumps([put_plan(sys.argv[2], 1, range(files), "1"), put_plan(sys.argv[2], 2, changed, "2")]))
    elif sys.argv[1] == "compare":
        print(json.dumps(compare(sys.argv[2], json.loads(sys.argv[3]))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = subprocess.run(
                [sys.executable, __file__, "put", folder, *sys.argv[1:3]], check=True, capture_output=True, text=True
            ).stdout
            subprocess.run([sys.executable, __file__, "compare", folder, made], check=True)
