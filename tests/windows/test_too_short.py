"""plan says when a window rule gives no window at all, and counts as the rule cuts."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.errors import Reject
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.preview import preview
from wavmill.pipeline.job.too_short import shortest_s, windows_in
from wavmill.pipeline.windows.fixed import Fixed
from wavmill.pipeline.windows.musetalk import MuseTalk
from wavmill.pipeline.windows.wav2lip import Wav2Lip

FPS = st.sampled_from(["25", "29.97", "30000/1001", "12.5", "60", "1"])
FIXED = st.builds(
    Fixed, length_frames=st.integers(1, 60), stride_frames=st.integers(1, 80), tail=st.sampled_from(["drop", "pad"])
)
TALKING = st.builds(MuseTalk, fps=FPS, left=st.integers(0, 3), edge=st.sampled_from(["clamp", "zero", "reject"]))
TALKING |= st.builds(MuseTalk, fps=FPS, edge=st.sampled_from(["clamp", "zero"]), compat_float=st.just(True))
LIPS = st.builds(Wav2Lip, fps=FPS, frames=st.integers(1, 20), compat_float=st.booleans())


@given(FIXED | TALKING | LIPS, st.integers(0, 20_000))
@settings(max_examples=300, deadline=None)
def test_the_count_is_that_of_the_windows_that_are_cut(rule, millis):
    seconds = millis / 1000
    there = int(seconds * (rule.needs_hz or 50))
    [cut] = rule.open()([np.zeros(there)], [seconds]) if rule.kind != "fixed" else rule.open()([np.zeros(there)])
    assert rule.count(there, seconds) == (0 if isinstance(cut, Reject) else len(cut))


def job_of(tmp_path, window: str):
    text = f"""
name: words
source: {{kind: files, path: {tmp_path / "corpus"}}}
feature: {{kind: mfcc}}
window: {window}
keep: [feature, window]
store: {tmp_path / "store"}
"""
    return resolve(parse_job(text, "job.yaml", []), how_to_fit=None)


def warnings(job) -> list[str]:
    return [text for word, text in preview(job).findings if word == "warning"]


def test_plan_warns_of_a_rule_that_no_clip_is_long_enough_for(tmp_path, tone, wav):
    (tmp_path / "corpus").mkdir()
    for number in range(20):
        (tmp_path / "corpus" / f"{number:02d}.wav").write_bytes(wav(tone(0.3 + 0.01 * number)))
    long = job_of(tmp_path, "{kind: fixed, length_frames: 1000, stride_frames: 10}")
    [warning] = warnings(long)
    count = partial(windows_in, long.feature.clock, long.window)
    needs_s = shortest_s(count)
    assert count(needs_s) and not count(needs_s - 0.01)
    assert (
        f"needs {needs_s:.2f} s" in warning and "window.length_frames" in warning and "none of the 10 clips" in warning
    )
    assert warnings(job_of(tmp_path, "{kind: fixed, length_frames: 1000, stride_frames: 10, tail: pad}")) == []
    assert warnings(job_of(tmp_path, "{kind: fixed, length_frames: 5, stride_frames: 5}")) == []


def test_one_clip_that_is_long_enough_is_no_warning(tmp_path, tone, wav):
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        (tmp_path / "corpus" / f"{number}.wav").write_bytes(wav(tone(12.0 if number == 1 else 0.3)))
    rule = "{kind: fixed, length_frames: 1000, stride_frames: 10}"
    assert warnings(job_of(tmp_path, rule)) == []


@pytest.mark.parametrize("broken", [b"", b"not a sound"])
def test_nothing_is_said_of_clips_whose_length_is_not_known(tmp_path, broken):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(broken)
    assert warnings(job_of(tmp_path, "{kind: fixed, length_frames: 1000, stride_frames: 10}")) == []
