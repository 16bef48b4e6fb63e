"""Apply: runs the steps of a job (features, tokens, windows) over the clips of a shard."""

import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, cast

import numpy as np
import pyarrow as pa

from wavmill.model.clock import Clock
from wavmill.model.products import used
from wavmill.pipeline.contracts import Step, Work
from wavmill.pipeline.errors import Bug, Reject
from wavmill.pipeline.execution.processors import noted
from wavmill.pipeline.execution.watchdog import heartbeat
from wavmill.pipeline.protocol.timing import add_seconds
from wavmill.pipeline.rows import arrays_of, column_of, marked, replace

EMPTY = np.zeros(0, np.int8)  # column_of gives it the column's own type
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")
_open: dict[Any, Any] = {}  # what this worker has opened


class Apply:
    """Run steps one after another over a shard; a row whose ``error`` is set passes through with an empty array.

    For a step with a clock the number of frames is checked, and the frames of the context around a part are dropped. A
    step whose ``context`` is False is given the part without its context.
    """

    def __init__(self, choices: Sequence[Step], drop: Sequence[str] = ()) -> None:
        self.choices, self.drop = choices, drop

    def __call__(self, shard: pa.Table) -> pa.Table:
        for choice in self.choices:
            heartbeat()
            start = perf_counter()
            used.clear()
            shard = self._one(choice, shard)
            shard = noted(shard, choice.writes, used, choice.gpu)
            shard = add_seconds(shard, choice.writes, perf_counter() - start)
        return shard.drop_columns([name for name in self.drop if name in shard.column_names])

    def _one(self, choice: Step, shard: pa.Table) -> pa.Table:
        good = [i for i, error in enumerate(shard["error"].to_pylist()) if not error]
        arrays = arrays_of(shard[choice.reads])
        if not choice.context:
            places = zip(arrays, shard["lead_samples"].to_pylist(), shard["kept_samples"].to_pylist(), strict=True)
            arrays = [wave[lead : lead + kept] if kept else wave for wave, lead, kept in places]
            shard = replace(shard, "lead_samples", pa.repeat(pa.scalar(0, pa.int64()), shard.num_rows))
        facts = [shard[name].to_pylist() for name in choice.facts]

        def of(work: Work, rows: list[int]) -> dict[int, np.ndarray | Reject]:
            columns = [[column[i] for i in rows] for column in (arrays, *facts)]
            return dict(zip(rows, work(*columns), strict=True))

        made = of(open_step(choice), good)
        if spoilt := [i for i in good if not finite(made[i])]:
            made |= again_in_float32(choice, spoilt, of)
        column, rejected = [EMPTY] * len(arrays), {}
        for i, result in made.items():
            if isinstance(result, Reject):
                rejected[i] = result
            else:
                column[i] = result
        if choice.clock is not None:
            self._keep_part(choice, choice.clock, shard, arrays, column, [i for i in good if i not in rejected])
        shard = replace(shard, choice.writes, column_of(column, choice.type))
        return marked(shard, choice.writes, rejected)

    def _keep_part(
        self, choice: Step, clock: Clock, shard: pa.Table, arrays: list[Any], column: list[Any], rows: list[int]
    ) -> None:
        leads, kepts = shard["lead_samples"].to_numpy(), shard["kept_samples"].to_numpy()
        for i in rows:
            samples = len(arrays[i])
            if len(column[i]) != clock.frames(samples):
                raise Bug(f"{choice.kind}: {len(column[i])} frames of {samples} samples; see its clock")
            first, last = clock.part(int(leads[i]), int(kepts[i]), samples)
            column[i] = column[i][first:last]


def finite(result: np.ndarray | Reject) -> bool:
    """False for an array that holds NaN or infinity."""
    if isinstance(result, Reject) or not np.issubdtype(result.dtype, np.floating):
        return True
    return bool(np.isfinite(result).all())


def again_in_float32(
    choice: Step, rows: list[int], of: Callable[[Work, list[int]], dict[int, np.ndarray | Reject]]
) -> dict[int, np.ndarray | Reject]:
    """Compute the rows whose numbers were not finite again in float32: row -> its result, or a Reject.

    A net in half precision is loaded in float32 for these rows alone. A net in float32 already would give the same
    numbers again, so its rows are rejected; so are all rows when memory is too small for the second net.
    """
    exact, dtype = choice.in_float32(), choice.arithmetic()
    if dtype == "float32":
        return dict.fromkeys(rows, Reject("nan_features", f"{choice.kind} gave NaN or infinity"))
    made: dict[int, np.ndarray | Reject] = {}
    try:
        work: Work | None = exact.open()
        for i in rows:  # one at a time: memory is scarce
            heartbeat()
            made |= of(cast(Work, work), [i])
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        told = f"{choice.kind} gave NaN or infinity in {dtype}, and memory is too small to try float32: {error}"
        made = {i: made.get(i, Reject("nan_features", told[:500])) for i in rows}
    finally:
        work = None  # so that its memory can be given back
        give_back_memory()
    told = f"{choice.kind} gave NaN or infinity in {dtype} and in float32"
    return {i: result if finite(result) else Reject("nan_features", told) for i, result in made.items()}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the host or on a GPU. torch raises subclasses of RuntimeError, and that."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def give_back_memory() -> None:
    """Release the GPU memory that torch has cached and nothing uses."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def open_step(choice: Step) -> Work:
    """What ``choice.open()`` returns, opened once in this process."""
    key = (type(choice), choice.model_dump_json())
    if key not in _open:
        _open[key] = choice.open()
    result: Work = _open[key]
    return result
