"""Tokens of a corpus over a bad connection, killed again and again, against those of a run that nothing happens to.

    python benchmarks/reliability_digits.py FOLDER [KILLS]

The same job twice: into a local folder, undisturbed; and from and into OpenStack Swift's S3 interface on this machine.
There a proxy answers a seeded fifth of all requests with 503 SlowDown, and everything that belongs to the run is killed
at seeded moments: when the store holds so many objects, and one more at least than when the command was given. Prints
the hashes of both token columns. Needs the tools for tests: pip install -e '.[dev]'.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from fault_proxy import FaultProxy, faulty
from raykills import WAVMILL, kill_tree
from s3_server import swift_server

KILLS, SHARE, SEED = 20, 0.2, 0
CODES = 64
COMMANDS = 40  # of which the last has to come through, should a few stop by themselves
RESUMABLE = 75
BUCKET = "mill"


class SlowDown(dict[int, str]):
    """What the proxy does to one request after another: 503 to a seeded share."""

    def __init__(self) -> None:
        self.lots, self.count = random.Random(SEED), 0

    def get(self, number: int, default: Any = "") -> Any:
        refused = self.lots.random() < SHARE
        self.count += refused
        return "503" if refused else default


def job_file(root: Path, name: str, source: str, store: str) -> str:
    said = {
        "name": "digits",
        "source": {"kind": "files", "path": source},
        "feature": {"kind": "mel"},
        "token": {"kind": "kmeans", "codes": CODES, "codebook": f"{root}/codebook"},
        "store": store,
    }
    path = root / f"{name}.json"
    path.write_text(json.dumps(said))
    return str(path)


def wavmill(*words: str) -> float:
    start = time.monotonic()
    done = subprocess.run([WAVMILL, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"wavmill {' '.join(words)}\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


def tokens_hash(parts: list[pa.Table]) -> tuple[str, int]:
    """A hash of every clip's name and tokens, in the order of their names, and how many clips there are."""
    table = pa.concat_tables(parts).select(["clip", "token"]).sort_by("clip")
    hashed = hashlib.sha256()
    for clip, token in zip(*(table[name].to_pylist() for name in ("clip", "token")), strict=True):
        hashed.update(f"{clip} {token}\n".encode())
    return hashed.hexdigest(), table.num_rows


def objects(client: Any, prefix: str) -> int:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return sum(page["KeyCount"] for page in pages)


def killed_run(job: str, client: Any, moments: list[int], log: Path) -> tuple[int, int]:
    """The same command until it is done, killed with all of Ray at each moment. Kills, and stops of its own accord."""
    kills = stops = 0
    waiting = list(moments)
    for _ in range(len(moments) + COMMANDS):
        before = objects(client, "store/")
        with log.open("w") as said:
            run = subprocess.Popen([WAVMILL, "run", job], stdout=said, stderr=said)
        while run.poll() is None:
            if waiting and objects(client, "store/") >= max(waiting[0], before + 1):
                waiting.pop(0)
                kill_tree(run.pid)
                kills += run.wait() == -signal.SIGKILL
            time.sleep(0.2)
        if run.returncode == 0:
            return kills, stops
        if run.returncode == RESUMABLE:
            stops += 1
        elif run.returncode > 0:
            sys.exit(f"the run ended with {run.returncode}\n{log.read_text()}")
    sys.exit(f"not done after {len(moments) + COMMANDS} commands\n{log.read_text()}")


def main(folder: Path, wanted: int) -> None:
    with tempfile.TemporaryDirectory(prefix="digits-") as place, tempfile.TemporaryDirectory(prefix="r") as ray:
        os.environ["RAY_TMPDIR"] = ray  # the killed ones leave a lot behind
        root = Path(place)
        quiet = job_file(root, "quiet", str(folder.resolve()), f"{root}/store")
        wavmill("fit", quiet)
        quiet_s = wavmill("run", quiet)
        top = root / "store" / "digits" / "v1"
        dataset = json.loads((top / "dataset.json").read_bytes())
        right, clips = tokens_hash([pq.read_table(top / part["path"]) for part in dataset["parts"]])
        shards = len(list((root / "store" / "_mill" / "done").rglob("*.json")))
        with swift_server(root / "swift") as server, faulty(server) as (there, proxy):
            client = server.client()
            client.create_bucket(Bucket=BUCKET)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                client.upload_file(str(path), BUCKET, f"corpus/{path.relative_to(folder)}")
            os.environ.update(there.env())
            job = job_file(root, "bad", f"s3://{BUCKET}/corpus", f"s3://{BUCKET}/store")
            moments = sorted(random.Random(SEED).sample(range(1, 2 * shards), wanted))  # data and records
            faults = SlowDown()
            proxy.faults = faults
            start = time.monotonic()
            kills, stops = killed_run(job, client, moments, root / "log")
            bad_s = time.monotonic() - start
            report(client, proxy, faults, right, (clips, shards, kills, stops), (quiet_s, bad_s))


def report(
    client: Any, proxy: FaultProxy, faults: SlowDown, right: str, counts: tuple[int, ...], took: tuple[float, ...]
) -> None:
    def got(key: str) -> Any:
        return client.get_object(Bucket=BUCKET, Key=f"store/{key}")["Body"].read()

    dataset = json.loads(got("digits/v1/dataset.json"))
    parts = [pq.read_table(pa.BufferReader(got(f"digits/v1/{part['path']}"))) for part in dataset["parts"]]
    came, rows = tokens_hash(parts)
    clips, shards, kills, stops = counts
    print("| | undisturbed, in a folder | S3, 503 and kills |\n|---|---|---|")
    print(f"| sha256 of clips and tokens | {right} | {came} |")
    print(f"| clips (rejected) | {clips} | {rows} ({dataset['counts']['rejected']}) |")
    print(f"| wall time | {took[0]:.0f} s | {took[1]:.0f} s |\n")
    requests = len(proxy.log)
    print(f"{shards} shards; {objects(client, 'store/_mill/done/')} records; kills of everything: {kills}; ", end="")
    print(f"stops of its own accord, exit code {RESUMABLE}: {stops}; seed {SEED}")
    print(f"requests: {requests}, answered with 503: {faults.count} ({faults.count / requests:.1%}); ", end="")
    print(f"requests for each that was let through: {requests / (requests - faults.count):.2f}")
    if (came, rows) != (right, clips):
        sys.exit("the tokens differ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else KILLS)
