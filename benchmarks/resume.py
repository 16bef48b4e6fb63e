"""How long until a run that has N records knows its first undone shard, and how often it asks the store for that.

A folder with N record files and a plan of as many shards, whose last one has no record; the same keys on a server that
can only list (1,000 keys a page, in a process of its own); and, if asked, 2,000 objects on
OpenStack Swift. A round is what ``run`` does before it starts Ray: read the plans, list the records, take the first
shard without one.

python benchmarks/resume.py 100000 3            # N up to this many, median of so many rounds
python benchmarks/resume.py 100000 3 swift      # and 2,000 on Swift
"""

import hashlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wavmill.pipeline.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

FEWEST = 1000
SERVED = 2000  # records on Swift
KEYS = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def planned(store: Path, shards: int) -> tuple[Any, list[str]]:
    """A job with a plan of so many shards, and the keys of the records of all but the last."""
    from wavmill.pipeline.job.dataset_job import fingerprint, resolve
    from wavmill.pipeline.job.load import parse_job
    from wavmill.pipeline.protocol.plan import next_plan
    from wavmill.pipeline.protocol.records import record_key
    from wavmill.pipeline.sources.files import Files
    from wavmill.pipeline.store.objects import SCHEMA

    Files.seconds = lambda self, objects: np.full(objects.num_rows, 3600.0)  # type: ignore[method-assign]
    job = resolve(parse_job(f"name: a\nsource: {{kind: files, path: x}}\nfeature: {{kind: mfcc}}\nstore: {store}\n"))
    names = [f"hour{number:08d}.flac" for number in range(shards)]
    columns = [names, [10**8] * shards, ["stamp"] * shards, [0] * shards, [-1] * shards]
    [plan] = next_plan(Workspace(job), [], pa.table(columns, schema=SCHEMA))
    done = plan.shards["shard"].to_pylist()[:-1]
    attempts = (hashlib.sha256(shard.encode()).hexdigest()[:16] for shard in done)
    return job, [record_key(fingerprint(job), *pair) for pair in zip(done, attempts, strict=True)]


def resumed(job: Any, address: str = "") -> None:
    """Find the first undone shard; the records may be listed elsewhere than where the plan is."""
    from wavmill.pipeline.job.dataset_job import fingerprint
    from wavmill.pipeline.protocol.plan import plans_of, todo_of
    from wavmill.pipeline.protocol.records import attempts_done
    from wavmill.pipeline.store import open_store

    plans = plans_of(Workspace(job))
    done = attempts_done(open_store(address or job.store), fingerprint(job))
    [last] = todo_of(plans, set(done))
    assert last["row_lo"] == len(done), "the last shard is the only one to do"


def seconds(rounds: int, work: Callable[[], None]) -> list[float]:
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return took


def said(took: list[float]) -> str:
    return f"{statistics.median(took):.2f} s ({min(took):.2f}-{max(took):.2f})"


def exponent(sizes: list[int], costs: list[float]) -> str:
    """b of cost = a * records ** b, by least squares of the logarithms."""
    return f"{np.polyfit(np.log(sizes), np.log(costs), 1)[0]:.2f}" if len(sizes) > 1 else "-"


def on_swift(job: Any, keys: list[str], rounds: int, root: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from s3_server import swift_server

    from wavmill.pipeline.store import open_store

    with swift_server(root / "swift") as server:
        os.environ.update(server.env())
        server.client().create_bucket(Bucket="resume")
        store = open_store("s3://resume")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: store.put(key, b"{}"), keys))
        took = seconds(rounds, lambda: resumed(job, "s3://resume"))
        print(f"\n{len(keys):,} records on OpenStack Swift: {said(took)}")


def main(most: int, rounds: int, swift: bool) -> None:
    from list_server import asked_of, listing

    sizes = [FEWEST * 10**power for power in range(9) if FEWEST * 10**power <= most]
    root, medians = Path(tempfile.mkdtemp(prefix="resume-")), (list[float](), list[float]())
    os.environ.update(KEYS)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {rounds} rounds\n")
    print("| records | folder | S3 | list requests of a round, at most | other requests |\n|---|---|---|---|---|")
    try:
        for size in sizes:
            job, keys = planned(root / str(size), size + 1)
            for key in keys:
                path = root / str(size) / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"{}")
            here = seconds(rounds, lambda job=job: resumed(job))
            with listing(keys) as address:
                os.environ["AWS_ENDPOINT_URL"] = address
                there = seconds(rounds, lambda job=job: resumed(job, "s3://bucket"))
                asked = asked_of(address)
            lists = asked.pop("list") / rounds
            for costs, took in zip(medians, (here, there), strict=True):
                costs.append(statistics.median(took))
            limit = -(-size // 1000) + 16
            print(
                f"| {size:,} | {said(here)} | {said(there)} | {lists:.0f}, {limit} | {sum(asked.values())} |",
                flush=True,
            )
            assert lists <= limit and not asked, asked
        print("| exponent | " + " | ".join(exponent(sizes, costs) for costs in medians) + " | | |")
        if swift:
            on_swift(*planned(root / "few", SERVED + 1), rounds, root)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "swift"]
    most, rounds = [*map(int, given), *(100_000, 3)[len(given) :]]
    main(most, rounds, "swift" in sys.argv)
