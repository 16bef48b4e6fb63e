"""Windows are positions: how many, which, and what stands where there is nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wavmill.pipeline.windows import WINDOWS, Fixed

quick = settings(deadline=None, max_examples=150)
frames = st.integers(0, 200)
lengths = st.integers(1, 40)
strides = st.integers(1, 40)


def restated(count: int, length: int, stride: int, tail: str) -> list[list[int]]:
    """Window after window, until there is none left to take; for tail pad until every frame had its chance."""
    made, start = [], 0
    while start + length <= count:
        made.append(list(range(start, start + length)))
        start += stride
    covered = made[-1][-1] + 1 if made else 0
    if tail == "pad" and covered < count and start < count:
        made.append([at if at < count else -1 for at in range(start, start + length)])
    return made


@quick
@given(frames, lengths, strides, st.sampled_from(["drop", "pad"]))
def test_the_windows_are_those_a_walk_along_the_frames_takes(count, length, stride, tail):
    made = Fixed(length_frames=length, stride_frames=stride, tail=tail).positions(count)
    assert made.tolist() == restated(count, length, stride, tail)


@quick
@given(frames, lengths, strides)
def test_tail_drop_gives_as_many_windows_as_its_formula(count, length, stride):
    made = Fixed(length_frames=length, stride_frames=stride).positions(count)
    assert len(made) == max(0, (count - length) // stride + 1)


@quick
@given(frames, lengths, st.data())
def test_tail_pad_leaves_no_frame_out_when_windows_touch(count, length, data):
    stride = data.draw(st.integers(1, length))
    made = Fixed(length_frames=length, stride_frames=stride, tail="pad").positions(count)
    assert set(made.ravel().tolist()) - {-1} == set(range(count))


@quick
@given(frames, lengths, strides)
def test_tail_pad_fills_up_the_last_window_only(count, length, stride):
    made = Fixed(length_frames=length, stride_frames=stride, tail="pad").positions(count)
    assert (made[:-1] >= 0).all()


@quick
@given(frames, lengths, strides)
def test_no_window_is_empty(count, length, stride):
    made = Fixed(length_frames=length, stride_frames=stride, tail="pad").positions(count)
    assert (made[:, 0] >= 0).all()


@pytest.mark.parametrize("tail", ["drop", "pad"])
def test_a_clip_without_frames_has_no_windows(tail):
    assert Fixed(length_frames=5, stride_frames=2, tail=tail).positions(0).shape == (0, 5)


def test_a_window_is_int32_and_as_wide_as_its_type_says():
    rule = Fixed(length_frames=7, stride_frames=3, tail="pad")
    made = rule.positions(20)
    assert made.dtype == np.int32
    assert made.shape[1] == rule.type.value_type.list_size


def test_open_looks_at_the_number_of_frames_alone():
    work = Fixed(length_frames=4, stride_frames=4).open()
    [of_features, of_tokens] = work([np.full((9, 39), np.nan, np.float32), np.zeros(9, np.uint16)])
    assert (of_features == of_tokens).all()


@pytest.mark.parametrize("options", [{"length_frames": 0}, {"stride_frames": 0}, {"tail": "keep"}, {"hop": 1}])
def test_a_rule_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValidationError):
        Fixed(**{"length_frames": 4, "stride_frames": 4, **options})


@pytest.mark.parametrize("kind", WINDOWS)
def test_a_registered_rule_is_called_by_its_own_name(kind):
    assert WINDOWS[kind].model_fields["kind"].default == kind
