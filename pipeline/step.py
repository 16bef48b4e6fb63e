"""Apply: the one class that Ray Data constructs. It opens choices once per worker and turns columns into columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import Reject
from pipeline.rows import arrays_of, column_of, marked, replace

EMPTY = np.zeros(0, np.int8)  # column_of gives it the column's own type


class Apply:
    """Run choices one after another over a shard; rows whose ``error`` is set pass through with an empty array.

    A choice names the column it ``reads`` and the one it ``writes``, gives that column's Arrow ``type``, and its
    ``open()`` returns a function from a list of arrays to a list with, per clip, an array or a Reject. A choice
    with a ``clock`` reads sound: the frames of the context around a part are dropped here, for all of them.
    """

    def __init__(self, choices: Sequence[Any], drop: Sequence[str] = ()) -> None:
        self.choices, self.drop = choices, drop
        self.work = [choice.open() for choice in choices]

    def __call__(self, shard: pa.Table) -> pa.Table:
        for choice, work in zip(self.choices, self.work, strict=True):
            shard = self._one(choice, work, shard)
        return shard.drop_columns([name for name in self.drop if name in shard.column_names])

    def _one(self, choice: Any, work: Any, shard: pa.Table) -> pa.Table:
        good = np.flatnonzero(np.asarray(shard["error"].to_pylist(), object) == "")
        arrays = arrays_of(shard[choice.reads])
        made = work([arrays[i] for i in good])
        column, rejected = [EMPTY] * len(arrays), {}
        for i, result in zip(good, made, strict=True):
            if isinstance(result, Reject):
                rejected[int(i)] = result
            else:
                column[i] = result
        if hasattr(choice, "clock"):
            leads, kepts = shard["lead_samples"].to_numpy(), shard["kept_samples"].to_numpy()
            for i in good:
                first, last = choice.clock.part(int(leads[i]), int(kepts[i]), len(arrays[i]))
                column[i] = column[i][first:last]
        shard = replace(shard, choice.writes, column_of(column, choice.type))
        return marked(shard, choice.writes, rejected)

