"""Features that are not finite: tried again in float32 where that is another arithmetic; no second net stays open."""

import gc
import weakref
from collections import Counter
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pytest
from decoded_shards import shard, wave

from wavmill.pipeline.contracts import Quantizer
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.execution import apply as step
from wavmill.pipeline.execution.apply import Apply
from wavmill.pipeline.rows import ragged

opens: Counter[str] = Counter()
alive: "weakref.WeakSet[Net]" = weakref.WeakSet()
FAULTS = {
    "host": (MemoryError, ""),
    "gpu": (RuntimeError, "CUDA out of memory. Tried to allocate 20.00 MiB"),
    "cpu allocator": (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "cublas": (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
}


def fault(name: str) -> Exception:
    kind, message = FAULTS[name]
    return kind(message)  # a new one: its traceback holds on to what raised it


class Spoils(Quantizer):
    """Gives the samples as frames; where they are negative, NaN, unless it computes in float32 and is not hopeless."""

    kind: Literal["spoils"] = "spoils"
    dtype: str = "bfloat16"
    hopeless: bool = False
    opens_with: str = ""  # the fault of FAULTS that opening it in float32 has
    works_with: str = ""  # and extracting
    reads: ClassVar[str] = "audio"
    writes: ClassVar[str] = "feature"
    codes: int = 2

    def identity(self) -> str:
        return "0" * 64

    def arithmetic(self) -> str:
        return "float32" if self.dtype == "auto" else self.dtype

    def in_float32(self):
        return self.model_copy(update={"dtype": "float32"})

    @property
    def type(self) -> pa.DataType:
        return ragged(np.float32, 1)

    def open(self):
        opens[self.dtype] += 1
        if self.dtype == "float32" and self.opens_with:
            raise fault(self.opens_with)
        return Net(self)


class Net:
    """What is in memory while it is open."""

    def __init__(self, choice: Spoils) -> None:
        self.choice = choice
        alive.add(self)

    def __call__(self, waves):
        if self.choice.dtype == "float32" and self.choice.works_with:
            raise fault(self.choice.works_with)
        good = self.choice.dtype == "float32" and not self.choice.hopeless
        return [some[:, None] if good else np.where(some < 0, np.nan, some)[:, None] for some in waves]


@pytest.fixture(autouse=True)
def fresh():
    opens.clear()
    step._open.clear()
    gc.collect()
    yield
    step._open.clear()


def apply(*waves, **options) -> tuple[list[str], list[str], list[list[float]]]:
    made = Apply([Spoils(**options)])(shard(*waves))
    return made["error"].to_pylist(), made["message"].to_pylist(), made["feature"].to_pylist()


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_what_is_not_finite_in_float32_is_rejected_and_nothing_is_opened_again(dtype):
    for _ in range(3):
        errors, _, _ = apply(wave(1), -wave(1), wave(2), dtype=dtype, hopeless=True)
        assert errors == ["", "nan_features", ""]
    assert opens == {dtype: 1}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("hopeless", [False, True])
def test_the_net_in_float32_is_let_go_when_its_clips_are_done(dtype, hopeless):
    waves = wave(1), -wave(1, 30), wave(2), -wave(3, 20)
    for shards in (1, 2):
        errors, _, frames = apply(*waves, dtype=dtype, hopeless=hopeless)
        assert errors == (["", "nan_features", "", "nan_features"] if hopeless else [""] * 4)
        assert hopeless or [[frame[0] for frame in some] for some in frames] == [some.tolist() for some in waves]
        gc.collect()
        assert [net.choice.dtype for net in alive] == [dtype]
        assert opens == {dtype: 1, "float32": shards}


def test_without_a_clip_that_is_not_finite_nothing_is_opened_in_float32():
    assert apply(wave(1), wave(2))[0] == ["", ""]
    assert opens == {"bfloat16": 1}


@pytest.mark.parametrize("where", ["opens_with", "works_with"])
@pytest.mark.parametrize("fault", FAULTS)
def test_where_memory_does_not_suffice_for_float32_the_clip_is_rejected_and_says_so(where, fault):
    errors, messages, frames = apply(wave(1), -wave(1), wave(2), **{where: fault})
    assert errors == ["", "nan_features", ""]
    assert "in bfloat16, and memory is too small to try float32" in messages[1]
    assert [len(some) for some in frames] == [100, 0, 100]
    gc.collect()
    assert [net.choice.dtype for net in alive] == ["bfloat16"]


def test_another_fault_of_the_net_still_stops_the_run(monkeypatch):
    monkeypatch.setitem(FAULTS, "bug", (RuntimeError, "mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        apply(-wave(1), works_with="bug")


def test_a_choice_without_arithmetic_of_its_own_is_not_run_twice():
    class Plain(Spoils):
        def open(self):
            opens["plain"] += 1

            def work(waves):
                opens["runs"] += 1
                return [Reject("silent", "x") if not len(some) else some[:, None] * np.nan for some in waves]

            return work

    made = Apply([Plain(dtype="float32")])(shard(wave(1)))
    assert made["error"].to_pylist() == ["nan_features"] and opens == {"plain": 1, "runs": 1}
