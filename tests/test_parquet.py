"""Parquet at rest: a bit that changes on a disk or on the way is noticed, wherever in the data it is."""

import random

import numpy as np
import pyarrow as pa
import pytest
from chaos import CHAOS

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.protocol.commit import parquet_bytes
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.parquet import parquet_in

LOTS = np.random.default_rng(3)
TABLE = pa.table({
    "clip": [f"word{number}/take.flac" for number in range(300)],
    "seconds": LOTS.random(300),
    "token": [LOTS.integers(0, 500, LOTS.integers(1, 40)).astype(np.uint16) for _ in range(300)],
    "feature": [list(LOTS.random((2, 3), np.float32).ravel()) for _ in range(300)],
})  # fmt: skip
DATA = parquet_bytes(TABLE)
FOOTER_BYTES = 8 + int.from_bytes(DATA[-8:-4], "little")


def read(store):
    with parquet_in(store, "part") as part:
        return part.read()


@pytest.mark.parametrize("seed", range(5000 if CHAOS else 300))
def test_a_flipped_bit_stops_the_run_or_changes_nothing(seed, tmp_path):
    lots, damaged = random.Random(seed), bytearray(DATA)
    damaged[lots.randrange(4, len(DATA) - FOOTER_BYTES)] ^= 1 << lots.randrange(8)
    store = open_store(str(tmp_path))
    store.put("part", bytes(damaged))
    try:
        assert read(store).equals(TABLE)
    except Stopped as said:
        assert f"{tmp_path}/part is damaged" in str(said)
