"""Count the training and validation clips of a job without packing its datasets."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.errors import JobError, Stopped
from wavmill.pipeline.job.training_job import TrainJob
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.parquet import open_parquet
from wavmill.pipeline.training.flat_tokens import hashes_of

MOST_ROWS = 1_000_000  # above it the counts are estimated from the share


class SplitCounts(NamedTuple):
    """Clips on both sides of the split by the column ``by``, those that packing leaves out included."""

    by: str
    train: int
    valid: int
    exact: bool  # else by the share alone


def count_split(job: TrainJob, datasets: list[PublishedDataset]) -> SplitCounts:
    """Count both sides of a job's split by reading one column. JobError when a side is empty that should not be."""
    split = job.pack.split
    rows = sum(part.rows for dataset in datasets for part in dataset.parts)
    if rows > MOST_ROWS and not split.hold:
        valid = round(rows * split.valid)
        return SplitCounts(split.by, rows - valid, valid, exact=False)
    values = [_column(dataset, part.path, split.by) for dataset in datasets for part in dataset.parts]
    coded = pc.fill_null(pa.chunked_array(values, pa.string()), "").combine_chunks().dictionary_encode()
    hashes = hashes_of(coded.dictionary.to_pylist())
    limit = np.uint64(int(split.valid * 2**64))
    held = np.isin(hashes, hashes_of(list(split.hold))) if split.hold else hashes < limit
    valid = int(held[coded.indices.to_numpy()].sum())
    if rows == valid or (split.valid and not valid and not split.hold):
        side, left = ("the validation", "train on") if valid else ("the training", "validate with")
        raise JobError(
            f"pack.split: each of {len(hashes):,} values of {split.by} falls in {side}; nothing is left to {left}: "
            "change pack.split.valid, name some with pack.split.hold, or split by another column with pack.split.by"
        )
    return SplitCounts(split.by, rows - valid, valid, exact=True)


def _column(dataset: PublishedDataset, path: str, name: str) -> pa.Array:
    try:
        with open_parquet(open_store(dataset.address), path) as file:
            return file.read(columns=[name])[name].combine_chunks()
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise Stopped(f"{dataset.address}/{path} is damaged or gone: {error}") from error
