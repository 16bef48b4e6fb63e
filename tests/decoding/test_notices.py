"""Notices: clips that are done although something is the matter are counted, with an example, and said."""

import io
import json

import documents
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import run_inline, words

from wavmill.pipeline import notices
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip, parts_of
from wavmill.pipeline.rows import decoded

RATE_HZ = 16_000
quick = settings(deadline=None, max_examples=25)


def sound_file(channels: np.ndarray, rate_hz: int = RATE_HZ, format: str = "WAV", subtype: str = "FLOAT") -> io.BytesIO:
    """(N, channels) as a file in memory."""
    sink = io.BytesIO()
    soundfile.write(sink, channels, rate_hz, format=format, subtype=subtype)
    sink.seek(0)
    return sink


def noise(seconds: float, seed: int = 0, level: float = 0.1, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (level * np.random.default_rng(seed).normal(size=round(seconds * rate_hz))).astype(np.float32)


def notices_of(file: io.BytesIO, clip: Clip | None = None, **stretch) -> list[str]:
    return [part.notice for part in parts_of(file, clip or Clip(max_s=30), RATE_HZ, **stretch)]


@quick
@given(
    st.integers(2, 8),
    st.sampled_from([8000, 16_000, 44_100]),
    st.sampled_from(["PCM_16", "PCM_24", "FLOAT"]),
    st.floats(0.005, 0.15),
    st.integers(0, 9),
)
def test_channels_whose_sum_is_silence_give_a_notice(channels, rate_hz, subtype, level, seed):
    some = np.stack([noise(1, seed + i, level, rate_hz) for i in range(channels)], 1)
    some -= some.mean(axis=1, keepdims=True)
    assert notices_of(sound_file(some, rate_hz, subtype=subtype)) == ["channels_cancel"]


@quick
@given(st.integers(1, 8), st.integers(1, 8), st.floats(-1, 1), st.integers(0, 9))
def test_channels_that_are_silent_or_independent_or_alike_give_none(channels, loud, alike, seed):
    some = np.stack([noise(1, seed + i) + alike * noise(1, 99) for i in range(channels)], 1)
    some[:, loud:] = 0
    assert notices_of(sound_file(some)) == [""]


def test_a_notice_is_of_the_parts_whose_channels_cancel_and_of_no_others():
    left = noise(60)
    right = left.copy()
    right[20 * RATE_HZ : 40 * RATE_HZ] *= -1
    file = sound_file(np.stack([left, right], 1))
    assert notices_of(file, Clip(max_s=10)) == ["", "", "channels_cancel", "channels_cancel", "", ""]
    assert notices_of(file, start_s=5, end_s=9) == [""]
    assert notices_of(file, start_s=25, end_s=29) == ["channels_cancel"]


def test_silence_and_a_channel_that_is_asked_for_give_no_notice():
    left = noise(2)
    assert notices_of(sound_file(np.zeros((RATE_HZ, 2), np.float32))) == [""]
    assert notices_of(sound_file(np.stack([left, -left], 1)), Clip(channel=0)) == [""]


def test_a_notice_crosses_the_fence_for_sounds_decoded_alone_and_together():
    left = noise(1)
    file, plain = sound_file(np.stack([left, -left], 1)), sound_file(left[:, None])
    assert [part.notice for part in fence.parts_of(file, Clip(), RATE_HZ)] == ["channels_cancel"]
    three = [(number, some, (0.0, float("inf"), 0, -1)) for number, some in enumerate((plain, file, plain))]
    together = fence.parts_of_each(three, Clip(), RATE_HZ)
    assert [[part.notice for part in parts] for _, parts in together] == [[""], ["channels_cancel"], [""]]


@pytest.fixture
def corpus(tmp_path):
    """One good sound, three scaled as integers of 8, 16 and 32 bits, one of two channels that cancel."""
    left, folder = noise(1), tmp_path / "in"
    folder.mkdir()
    for name, some in {
        "good": left,
        "cancel": np.stack([left, -left], 1),
        **{f"int{bits}": left * 2.0 ** (bits - 1) for bits in (8, 16, 32)},
    }.items():
        soundfile.write(folder / f"{name}.wav", some, RATE_HZ, subtype="FLOAT")
    return folder


def test_notices_are_counted_in_dataset_json_and_said_after_a_run_and_in_the_report(corpus, tmp_path):
    job = words(corpus, tmp_path / "out")
    dataset = run_inline(job)
    assert dataset.counts.done == 5
    assert {code: notice.clips for code, notice in dataset.notices.items()} == {
        "channels_cancel": 1,
        "int_scaled": 3,
    }
    assert dataset.notices["channels_cancel"].example == "cancel.wav"
    assert dataset.notices["int_scaled"].example.startswith("int")
    assert json.loads((tmp_path / "out/words/v1/dataset.json").read_text())["notices"] == dataset.as_json()["notices"]
    assert notices.COLUMN not in dataset.columns  # nothing at rest changes
    first, second = notices.lines(dataset.notices)
    assert first.startswith("channels_cancel: 1 clip, for instance cancel.wav: ") and "clip.channel: 0" in first
    assert second.startswith("int_scaled: 3 clips, for instance int")
    assert "clip.channel: 0" in (tmp_path / "out/words/v1/report.html").read_text()
    assert first in printed(dataset)


def printed(dataset) -> str:
    from rich.console import Console

    from wavmill.cluster.printing import print_dataset

    sink = io.StringIO()
    print_dataset(Console(file=sink, width=1000), dataset, "somewhere")
    return sink.getvalue()


def test_a_dataset_of_before_there_were_notices_is_shown(corpus, tmp_path):
    said = run_inline(words(corpus, tmp_path / "out")).as_json()
    del said["notices"]
    assert "5 clips" in printed(PublishedDataset.of(said))


def test_a_clip_that_is_repaired_loses_its_notice_in_the_next_version(corpus, tmp_path):
    run_inline(words(corpus, tmp_path / "out"))
    soundfile.write(corpus / "cancel.wav", noise(1.5), RATE_HZ, subtype="FLOAT")
    dataset = run_inline(words(corpus, tmp_path / "out"))
    assert dataset.version == 2 and list(dataset.notices) == ["int_scaled"]


@quick
@given(st.lists(st.sets(st.sampled_from(["gap", "int_scaled", "channels_cancel"])), max_size=60), st.integers(0, 59))
def test_sums_are_those_of_the_clips_that_are_still_there(clips, replaced):
    schema = decoded([])
    given = {
        "clip": [f"c{i}" for i in range(len(clips))],
        "source": [f"s{i}" for i in range(len(clips))],
        notices.COLUMN: [notices.joined(*codes) for codes in clips],
    }
    nulls = [None] * len(clips)
    table = pa.table([pa.array(given.get(field.name, nulls), field.type) for field in schema], schema=schema)
    records = [documents.record(str(i), notices=notices.counted(table[i : i + 10])) for i in range(0, len(clips), 10)]

    def standing(record, named):
        return [clip for clip, source in named if source != f"s{replaced}"]

    found = {code: notice.clips for code, notice in notices.summed(records, standing).items()}
    still = [code for i, codes in enumerate(clips) if i != replaced for code in codes]
    assert found == {code: still.count(code) for code in set(still)}
