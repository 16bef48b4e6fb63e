"""Apply: the one class that Ray Data runs between reading and commit. Choices turn columns into columns."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import Reject
from pipeline.rows import arrays_of, column_of, marked, replace
from pipeline.spent import spent
from pipeline.watchdog import beat

EMPTY = np.zeros(0, np.int8)  # column_of gives it the column's own type
_open: dict[Any, Any] = {}  # what this worker has opened


class Apply:
    """Run choices one after another over a shard; rows whose ``error`` is set pass through with an empty array.

    A choice names the column it ``reads`` and the one it ``writes``, gives that column's Arrow ``type``, and its
    ``open()``, called once per worker, returns a function from a list of arrays to a list with, per clip, an array
    or a Reject. What else it must know of a clip it names in ``facts``, columns that the function gets behind the
    arrays. A choice with a ``clock`` reads sound: its frame counts are checked here, and the frames of the context
    around a part are dropped, for all of them alike; one whose ``context`` is False does not hear it.
    """

    def __init__(self, choices: Sequence[Any], drop: Sequence[str] = ()) -> None:
        self.choices, self.drop = choices, drop

    def __call__(self, shard: pa.Table) -> pa.Table:
        for choice in self.choices:
            beat()
            start = perf_counter()
            shard = self._one(choice, shard)
            shard = spent(shard, choice.writes, perf_counter() - start)
        return shard.drop_columns([name for name in self.drop if name in shard.column_names])

    def _one(self, choice: Any, shard: pa.Table) -> pa.Table:
        good = [i for i, error in enumerate(shard["error"].to_pylist()) if not error]
        arrays = arrays_of(shard[choice.reads])
        if not getattr(choice, "context", True):
            places = zip(arrays, shard["lead_samples"].to_pylist(), shard["kept_samples"].to_pylist(), strict=True)
            arrays = [wave[lead : lead + kept] if kept else wave for wave, lead, kept in places]
            shard = replace(shard, "lead_samples", pa.repeat(pa.scalar(0, pa.int64()), shard.num_rows))
        facts = [shard[name].to_pylist() for name in getattr(choice, "facts", ())]

        def of(choice: Any, rows: list[int]) -> dict[int, Any]:
            columns = [[column[i] for i in rows] for column in (arrays, *facts)]
            return dict(zip(rows, opened(choice)(*columns), strict=True))

        made = of(choice, good)
        if spoilt := [i for i in good if not finite(made[i])]:  # by half precision, or by a GPU
            made |= of(in_float32(choice), spoilt)
        column, rejected = [EMPTY] * len(arrays), {}
        for i, result in made.items():
            if not finite(result):
                result = Reject("nan_features", f"{choice.kind} gave NaN or infinity, twice")
            if isinstance(result, Reject):
                rejected[i] = result
            else:
                column[i] = result
        if hasattr(choice, "clock"):
            self._keep_part(choice, shard, arrays, column, [i for i in good if i not in rejected])
        shard = replace(shard, choice.writes, column_of(column, choice.type))
        return marked(shard, choice.writes, rejected)

    def _keep_part(self, choice: Any, shard: pa.Table, arrays: list[Any], column: list[Any], rows: list[int]) -> None:
        leads, kepts = shard["lead_samples"].to_numpy(), shard["kept_samples"].to_numpy()
        for i in rows:
            samples = len(arrays[i])
            if len(column[i]) != choice.clock.frames(samples):
                raise AssertionError(f"{choice.kind}: {len(column[i])} frames of {samples} samples; see its clock")
            first, last = choice.clock.part(int(leads[i]), int(kepts[i]), samples)
            column[i] = column[i][first:last]


def finite(result: Any) -> bool:
    """False for an array that holds NaN or infinity."""
    floats = not isinstance(result, Reject) and np.issubdtype(result.dtype, np.floating)
    return not floats or bool(np.isfinite(result).all())


def in_float32(choice: Any) -> Any:
    """The choice with its arithmetic in float32, where it has another."""
    return choice.model_copy(update={"dtype": "float32"}) if hasattr(choice, "dtype") else choice


def opened(choice: Any) -> Any:
    """What ``choice.open()`` returns, opened once in this process."""
    key = (type(choice), choice.model_dump_json())
    if key not in _open:
        _open[key] = choice.open()
    return _open[key]
