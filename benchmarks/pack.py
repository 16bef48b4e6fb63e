"""How fast a training pack is built, opened, split and read: made-up tokens, about 200 a row.

python benchmarks/pack.py [ROWS]
"""

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wavmill.pipeline.store import open_store
from wavmill.pipeline.training.pack_build import Data, Packing, Split, make_pack
from wavmill.pipeline.training.pack_read import open_pack

PART_ROWS, CODES, LOOKED_AT = 125_000, 500, 200_000


def made_up(root: Path, rows: int) -> int:
    """A dataset of rows of 1 to 400 codes, every code twice in a row; return how many codes."""
    rng, parts, total = np.random.default_rng(0), [], 0
    (root / "data").mkdir(parents=True)
    for begin in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - begin)
        offsets = np.cumsum(np.concatenate([[0], rng.integers(1, 401, count)])).astype(np.int32)
        codes = rng.integers(0, CODES, offsets[-1] // 2 + 1).astype(np.uint16).repeat(2)[: offsets[-1]]
        columns = {
            "clip": [f"speaker{i // 300:06d}/utterance{i:08d}.flac" for i in range(begin, begin + count)],
            "label": [f"speaker{i // 300:06d}" for i in range(begin, begin + count)],
            "token": pa.ListArray.from_arrays(offsets, codes),
        }
        path = f"data/part-{len(parts):05d}.parquet"
        pq.write_table(pa.table(columns), root / path, row_group_size=1000, compression="zstd")
        parts.append({"path": path, "rows": count, "row_groups": 1, "bytes": 0, "sha256": ""})
        total += int(offsets[-1])
    types = {name: {"type": "string"} for name in ("clip", "label")}
    token = {"type": "list<element: uint16>", "rate_hz": "50", "codes": str(CODES), "codebook": "0" * 64}
    dataset = {"format": "wavmill-dataset-1", "name": "made-up", "version": 1, "fingerprint": "0" * 64, "carry": []}
    dataset |= {"columns": {**types, "token": token}, "parts": parts, "job": {"fingerprint": "", "does": {}}}
    dataset |= {"recipe": {}, "created_at": "", "listed_at": [], "seconds": 0.0, "codebook": None}
    dataset |= {"counts": {"objects": 1, "clips": rows, "done": rows, "rejected": 0, "reasons": {}, "superseded": 0}}
    dataset |= {"rejects": {"path": "rejects.parquet", "rows": 0, "sha256": ""}}
    (root / "dataset.json").write_text(json.dumps(dataset))
    return total


def main(rows: int) -> None:
    root = Path(tempfile.mkdtemp(prefix="pack-"))
    try:
        tokens = made_up(root / "made-up" / "v1", rows)
        data, store = [Data(origin=str(root / "made-up"))], open_store(str(root / "store"))
        print("| rows | tokens | dedup | built | tokens/s | opened | a random row | split | peak memory |")
        print("|---|---|---|---|---|---|---|---|---|")
        for dedup in (False, True):
            started = time.perf_counter()
            made = make_pack(store, data, Packing(dedup=dedup))
            built_s = time.perf_counter() - started
            started = time.perf_counter()
            pack = open_pack(store, made.fingerprint)
            opened_s = time.perf_counter() - started
            wanted = np.random.default_rng(1).integers(0, pack.rows, LOOKED_AT).tolist()
            started = time.perf_counter()
            checksum = sum(int(pack.row(i)[-1]) for i in wanted)
            row_s = (time.perf_counter() - started) / LOOKED_AT
            assert checksum > 0
            started = time.perf_counter()
            train, valid = pack.split(Split())
            split_s = time.perf_counter() - started
            assert len(train) + len(valid) == rows
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"| {rows:,} | {tokens / 1e6:,.0f} M | {'yes' if dedup else 'no'} | {built_s:.1f} s "
                f"| {tokens / built_s / 1e6:.1f} M | {1e3 * opened_s:.1f} ms | {1e6 * row_s:.1f} µs "
                f"| {1e3 * split_s:.0f} ms | {peak:,.0f} MB |"
            )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
