"""Apply: columns in, columns out, and one bad clip is one bad row."""

from collections import Counter
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pytest
from decoded_shards import shard, wave

from wavmill.model.clock import Clock
from wavmill.pipeline.contracts import Extractor, Quantizer
from wavmill.pipeline.errors import Bug, Reject
from wavmill.pipeline.execution.apply import Apply, open_step
from wavmill.pipeline.rows import arrays_of, ragged

RATE_HZ = 1000
opens: Counter[str] = Counter()


class Levels(Extractor):
    """Frames of 10 samples without overlap; a frame is the mean of its samples, twice. Told how, it misbehaves."""

    kind: Literal["levels"] = "levels"
    misbehave: str = ""
    dtype: str = "float16"
    clock: ClassVar[Clock] = Clock(RATE_HZ, hop_samples=10, window_samples=10, centred=False)

    @property
    def type(self) -> pa.DataType:
        return ragged(np.float32, 1, 2)

    def arithmetic(self) -> str:
        return self.dtype

    def in_float32(self):
        return self.model_copy(update={"dtype": "float32"})

    def open(self):
        opens[self.misbehave] += 1
        return lambda waves: [self._one(wave) for wave in waves][self.misbehave == "loses a clip" :]

    def _one(self, wave):
        if self.misbehave == "rejects" and wave[0] < 0:
            return Reject("too_loud", "hurts")
        frames = wave[: len(wave) // 10 * 10].reshape(-1, 10).mean(axis=1)
        made = np.repeat(frames[:, None, None], 2, axis=2).astype(np.float32)  # (T, 1, 2)
        if wave[0] < 0 and (self.misbehave == "nan" or (self.misbehave == self.dtype == "float16")):
            made[-1, 0, 1] = np.nan
        return made[1:] if self.misbehave == "loses a frame" else made


class Signs(Quantizer):
    kind: Literal["signs"] = "signs"
    codes: int = 2

    @property
    def type(self) -> pa.DataType:
        return ragged(np.uint16)

    def identity(self) -> str:
        return "0" * 64

    def open(self):
        return lambda clips: [(frames[:, 0] > 0).astype(np.int32) for frames in clips]


def test_a_choice_writes_the_column_it_names_in_the_type_it_names():
    made = Apply([Levels()])(shard(wave(1), wave(2, 55)))
    assert made.schema.field("feature").type == Levels().type
    assert [len(array) for array in arrays_of(made["feature"])] == [10, 5]


def test_choices_run_one_after_another():
    made = Apply([Levels(), Signs()])(shard(wave(1, 30), wave(-1, 20)))
    assert made["token"].to_pylist() == [[1, 1, 1], [0, 0]]


def test_a_clip_that_overflows_in_half_precision_is_extracted_once_more_in_float32():
    waves = wave(30), -wave(50), wave(20)
    right = Apply([Levels(misbehave="", dtype="float32")])(shard(*waves))
    assert Apply([Levels(misbehave="float16")])(shard(*waves))["feature"].equals(right["feature"])


@pytest.mark.parametrize("fault, reason", [("rejects", "too_loud"), ("nan", "nan_features")])
def test_a_bad_clip_marks_its_row_with_its_stage_and_reason(fault, reason):
    made = Apply([Levels(misbehave=fault)])(shard(wave(1), wave(-1), wave(2)))
    assert made["error"].to_pylist() == ["", reason, ""]
    assert made["stage"].to_pylist() == ["", "feature", ""]


@pytest.mark.parametrize("fault", ["rejects", "nan"])
def test_a_bad_clip_leaves_the_others_their_numbers(fault):
    made = Apply([Levels(misbehave=fault)])(shard(wave(1), wave(-1), wave(2)))
    alone = Apply([Levels()])(shard(wave(1), wave(2)))
    assert [made["feature"][i].as_py() for i in (0, 2)] == alone["feature"].to_pylist()
    assert made["feature"][1].as_py() == []


def test_a_row_with_an_error_is_not_worked_on_and_keeps_it():
    made = Apply([Levels(), Signs()])(shard(wave(1), wave(2), errors=("not_audio", "")))
    assert made["error"].to_pylist() == ["not_audio", ""]
    assert [len(array) for array in arrays_of(made["token"])] == [0, 10]


def test_a_clip_rejected_by_one_choice_is_not_seen_by_the_next():
    made = Apply([Levels(misbehave="rejects"), Signs()])(shard(wave(-1), wave(1)))
    assert made["stage"].to_pylist() == ["feature", ""]
    assert [len(array) for array in arrays_of(made["token"])] == [0, 10]


def test_a_shard_of_nothing_but_errors_passes_through():
    made = Apply([Levels(), Signs()])(shard(wave(1), errors=("not_audio",)))
    assert made["feature"].to_pylist() == [[]] and made["token"].to_pylist() == [[]]


def test_frames_that_disagree_with_the_clock_stop_the_run():
    with pytest.raises(Bug, match="9 frames of 100 samples"):
        Apply([Levels(misbehave="loses a frame")])(shard(wave(1)))


def test_a_choice_that_loses_a_clip_stops_the_run():
    with pytest.raises(ValueError):
        Apply([Levels(misbehave="loses a clip")])(shard(wave(1), wave(2)))


def test_the_frames_of_the_context_are_dropped():
    made = Apply([Levels()])(shard(wave(1), leads=[30], kepts=[50]))
    [whole] = arrays_of(Apply([Levels()])(shard(wave(1)))["feature"])
    assert (arrays_of(made["feature"])[0] == whole[3:8]).all()


def test_a_shard_in_several_chunks_gives_what_one_chunk_gives():
    whole = shard(wave(1), wave(-2), wave(3, 40))
    chunked = pa.concat_tables([whole[:1], whole[1:]])
    assert Apply([Levels(), Signs()])(chunked).equals(Apply([Levels(), Signs()])(whole))


def test_a_slice_of_a_shard_gives_what_its_rows_give_alone():
    whole = shard(wave(1), wave(-2), wave(3, 40), leads=[0, 10, 20], kepts=[100, 50, 20])
    assert Apply([Levels()])(whole[1:])["feature"].to_pylist() == Apply([Levels()])(whole)["feature"][1:].to_pylist()


def test_a_column_is_dropped_where_it_is_last_read():
    made = Apply([Levels(), Signs()], drop=["audio", "feature", "no such column"])(shard(wave(1)))
    assert "audio" not in made.column_names and "feature" not in made.column_names
    assert made["token"].to_pylist() == [[1] * 10]


def test_a_choice_is_opened_once_in_a_process_however_many_steps_use_it():
    choice = Levels(misbehave="not at all")
    for _ in range(3):
        Apply([choice])(shard(wave(1)))
    open_step(Levels(misbehave="not at all"))
    assert opens["not at all"] == 1
