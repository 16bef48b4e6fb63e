"""The units of what a job publishes, and the version under which ``plan`` foresees it."""

import json
from typing import Any, ClassVar

import documents
import numpy as np
import pyarrow as pa
import pytest
from inline import run_inline, words

from wavmill.pipeline.contracts import Quantizer
from wavmill.pipeline.job.columns import columns_of
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.preview import preview


class Codes(Quantizer):
    kind: str = "codes"
    codes: int = 7
    many: int = 1
    type: ClassVar[pa.DataType] = pa.list_(pa.list_(pa.uint16()))

    @property
    def codebooks(self) -> int:
        return self.many

    def open(self) -> Any:
        return lambda frames: [np.zeros((len(one), self.many), np.uint16) for one in frames]

    def identity(self) -> str:
        return "0" * 64


@pytest.mark.parametrize("many", [1, 2, 8])
def test_tokens_say_how_many_codebooks_they_have_when_there_are_several(few, tmp_path, many):
    job = words(few, tmp_path / "store", "keep=[feature, window]")
    job = job.model_copy(update={"token": Codes(many=many), "keep": ("token",)})
    units = columns_of(job).field("token").metadata
    wanted = {b"rate_hz": b"50", b"codes": b"7", b"codebook": b"0" * 64}
    assert units == (wanted if many == 1 else {**wanted, b"codebooks": str(many).encode()})


def test_the_version_that_is_foreseen_is_the_one_that_is_published(few, tmp_path):
    job = words(few, tmp_path / "store")
    assert preview(job).version == 1
    assert run_inline(job).version == preview(job).version == 1  # nothing would be done
    (few / "another.wav").write_bytes((few / "0.wav").read_bytes())
    assert preview(job).version == 2
    assert run_inline(job).version == preview(job).version == 2


@pytest.mark.parametrize("video", [False, True])
def test_what_is_known_of_a_dataset_s_video_stays_with_its_clips(tmp_path, video):
    columns = {"feature": {"type": "list<element: float>", "rate_hz": "80", "layers": "1"}}
    columns |= {"fps": {"type": "string"}, "frames": {"type": "int64"}} if video else {}
    (tmp_path / "mels" / "v1").mkdir(parents=True)
    (tmp_path / "mels" / "v1" / "dataset.json").write_text(json.dumps(documents.dataset(name="mels", columns=columns)))
    job = resolve(parse_job(f"""
name: windows
source: {{kind: dataset, from: {tmp_path}/mels, column: feature}}
window: {{kind: fixed, length_frames: 4, stride_frames: 2}}
store: {tmp_path}/store
"""))  # fmt: skip
    found = columns_of(job)
    assert ({"fps", "frames"} & {*found.names} == {"fps", "frames"}) == video
    assert found.field("window").metadata == {b"over": b"feature", b"rate_hz": b"80", b"kind": b"fixed"}
