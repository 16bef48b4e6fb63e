"""What a part of a job has that says no more than it must: the defaults of the contracts."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from wavmill.model.clock import Clock
from wavmill.pipeline.contracts import Export, Extractor, Quantizer, Source, Window
from wavmill.pipeline.errors import ObjectFault

FLOATS = pa.list_(pa.list_(pa.list_(pa.float32())))


class Frames(Extractor):
    kind: str = "frames"
    clock: ClassVar[Clock] = Clock(16_000, 320, 320, False)
    type: ClassVar[pa.DataType] = FLOATS

    def open(self) -> Any:
        return lambda waves: [np.zeros((len(wave) // 320, 1, 1), np.float32) for wave in waves]


class Codes(Quantizer):
    kind: str = "codes"
    codes: int = 4
    type: ClassVar[pa.DataType] = pa.list_(pa.uint16())

    def open(self) -> Any:
        return lambda frames: [np.zeros(len(one), np.uint16) for one in frames]

    def identity(self) -> str:
        return "0" * 64


class Halves(Window):
    kind: str = "halves"
    reads: ClassVar[str] = "token"
    type: ClassVar[pa.DataType] = pa.list_(pa.list_(pa.int32()))

    def open(self) -> Any:
        return lambda rows: [np.arange(len(row) // 2 * 2, dtype=np.int32).reshape(2, -1) for row in rows]


class Nowhere(Source):
    kind: str = "nowhere"

    def objects(self, clip: Any, left_out: Any) -> Any:
        return iter(())

    def seconds(self, objects: pa.Table) -> np.ndarray:
        return np.zeros(len(objects))

    def read(self, objects: pa.Table, clip: Any, rate_hz: int) -> pa.Table:
        return objects


class Plain(Export):
    kind: str = "plain"
    column: ClassVar[str] = "feature"

    def files(self, frames: np.ndarray) -> Any:
        yield "frames", frames


@pytest.mark.parametrize("part", [Frames, Codes, Halves, Nowhere, Plain])
def test_it_lacks_nothing(part):
    part.check_class()
    part()


@pytest.mark.parametrize(
    ("step", "reads", "writes", "clock"),
    [
        (Frames(), "audio", "feature", Frames.clock),
        (Codes(), "feature", "token", None),
        (Halves(), "token", "window", None),
    ],
)
def test_a_step_computes_in_float32_on_the_cpu_with_the_sound_around_it_and_stays_as_it_is(step, reads, writes, clock):
    assert (step.reads, step.writes, step.clock) == (reads, writes, clock)
    assert (step.context, step.facts, step.gpu, step.arithmetic()) == (True, (), False, "float32")
    assert step.in_float32() is step and step.resolved() is step


def test_frames_are_one_layer_that_is_not_turned_into_sound():
    assert (Frames().layer_count, Frames().decodable) == (1, False)
    with pytest.raises(NotImplementedError):
        Frames().sound(np.zeros((1, 1, 1), np.float32))


def test_codes_are_of_one_codebook_that_nobody_has_to_learn():
    codes = Codes()
    assert (codes.codebooks, codes.fitted_at, codes.centroids(), codes.files()) == (1, None, None, {})
    assert codes.fitted(dict) is codes


def test_windows_go_over_any_column_and_are_as_many_as_the_frames_about():
    windows = Halves()
    assert windows.over_column("token") is windows
    assert (windows.needs_hz, windows.needs_video, windows.count(50, 1.0)) == (None, False, None)
    assert windows.windows_hz(50.0) == 50.0
    assert windows.made_shorter_by == "leave out clips as short as these"


def test_a_source_gives_the_sound_of_local_files_without_more_columns():
    source = Nowhere()
    assert (source.gives, source.unit, source.remote, source.carried()) == ("audio", "sound files", False, ())
    assert source.place_of("a.wav") is None
    assert not source.has({"path": "a.wav", "size": 1, "stamp": "x"})
    with pytest.raises(ObjectFault, match="was listed twice"):
        source.stat("a.wav")


def test_an_export_asks_neither_for_pictures_nor_for_a_recipe():
    assert (Plain().fps, Plain().recipe_has) == (None, {})
