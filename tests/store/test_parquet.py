"""Parquet at rest: a bit that changes on a disk or on the way is noticed, wherever in the data it is."""

import io
import random
import re
import threading

import numpy as np
import pyarrow as pa
import pytest
from chaos import CHAOS
from places import ROOT

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.protocol.commit import parquet_bytes
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.parquet import ParquetFile, open_parquet, table_of

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
    with open_parquet(store, "part") as part:
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


class Noted(io.BytesIO):
    """A file that notes which threads call it."""

    def __init__(self, data):
        super().__init__(data)
        self.callers = set()

    def read(self, *size):
        self.callers.add(threading.get_ident())
        return super().read(*size)


@pytest.mark.parametrize("columns", [None, ["clip"], ["seconds", "feature"]])
@pytest.mark.parametrize(
    "way",
    [
        lambda file, columns: file.read(columns),
        lambda file, columns: file.read_row_groups([*range(file.num_row_groups)], columns),
        lambda file, columns: pa.Table.from_batches(file.iter_batches(7, columns)),
    ],
    ids=["read", "read_row_groups", "iter_batches"],
)
def test_no_thread_of_pyarrow_calls_back_into_python(way, columns):
    """Or it may do so while the interpreter ends, which aborts the process."""
    file = Noted(DATA)
    assert (
        way(ParquetFile(file), columns)
        .select(columns or TABLE.column_names)
        .equals(TABLE.select(columns or TABLE.column_names))
    )
    assert file.callers == {threading.get_ident()}
    assert table_of(DATA).equals(TABLE)


def test_parquet_is_read_in_one_place():
    product = ROOT / "pipeline"
    others = {
        path.name
        for path in product.rglob("*.py")
        if re.search(r"ParquetFile\(.*pre_buffer|pq\.(ParquetFile|read_table|ParquetDataset)\(", path.read_text())
    }
    assert others == {"parquet.py", "manifest_rows.py"}  # the second reads what users made, in the decoder
