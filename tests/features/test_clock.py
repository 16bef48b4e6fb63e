"""Frame counts, to the number, and parts of a sound that share its frames out without loss or repetition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.model.clock import Clock

CONTEXT_S = 2
HUBERT = Clock(rate_hz=16_000, hop_samples=320, window_samples=400, centred=False)
MFCC = Clock(rate_hz=16_000, hop_samples=160, window_samples=400, centred=False)
MEL = Clock(rate_hz=16_000, hop_samples=320, window_samples=800, centred=True)
HUBERT_CONVOLUTIONS = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]  # kernel, stride


@pytest.mark.parametrize(
    "samples, hubert, mfcc",
    [
        (0, 0, 0),
        (399, 0, 0),
        (400, 1, 1),
        (719, 1, 2),
        (720, 2, 3),
        (16_000, 49, 98),
        (48_000, 149, 298),
        (160_000, 499, 998),
        (190_800, 596, 1191),
        (250_000, 781, 1561),
        (480_000, 1499, 2998),
        (1_600_000, 4999, 9998),
        (3_200_000, 9999, 19998),
    ],
)
def test_the_counts_are_those_of_the_original_models(samples, hubert, mfcc):
    assert (HUBERT.frames(samples), MFCC.frames(samples)) == (hubert, mfcc)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 200_000))
def test_a_frame_of_hubert_is_what_its_seven_convolutions_leave(samples):
    left = samples
    for kernel, stride in HUBERT_CONVOLUTIONS:
        left = max(0, (left - kernel) // stride + 1)
    assert HUBERT.frames(samples) == left


@settings(deadline=None, max_examples=200)
@given(st.integers(400, 10_000_000))
def test_mfcc_has_two_frames_for_one_of_hubert_and_at_most_one_is_missing(samples):
    assert 2 * HUBERT.frames(samples) - MFCC.frames(samples) in (0, 1)


@pytest.mark.parametrize("samples, frames", [(0, 0), (1, 1), (319, 1), (320, 2), (15_999, 50), (16_000, 51)])
def test_a_centred_frame_stands_on_every_hop_from_the_first_sample_on(samples, frames):
    assert MEL.frames(samples) == frames


def test_the_frame_rate_is_the_sampling_rate_by_the_hop():
    assert (HUBERT.frames_hz, MFCC.frames_hz, MEL.frames_hz) == (50.0, 100.0, 50.0)


def parts(samples: int, from_hz: int, to_hz: int, max_s: int, min_s: float) -> list[tuple[int, int, int, int]]:
    """How a sound is cut: (start of the stretch in s, lead, kept, samples of the stretch), these three at to_hz."""

    def resampled(n: int) -> int:
        return -(-n * to_hz // from_hz)

    shortest, at, made = max(1, round(min_s * from_hz)), 0, []
    while samples - at * from_hz >= max_s * from_hz + shortest:
        lead_s = min(CONTEXT_S, at)
        stretch = min((lead_s + max_s + CONTEXT_S) * from_hz, samples - (at - lead_s) * from_hz)
        made.append((at - lead_s, lead_s * to_hz, max_s * to_hz, resampled(stretch)))
        at += max_s
    lead_s = min(CONTEXT_S, at)
    stretch = resampled(samples - (at - lead_s) * from_hz)
    return [*made, (at - lead_s, lead_s * to_hz, stretch - lead_s * to_hz, stretch)]


@pytest.mark.parametrize("clock", [HUBERT, MFCC, MEL], ids=["hubert", "mfcc", "mel"])
@settings(deadline=None, max_examples=200)
@given(
    seconds=st.integers(0, 100),
    rest=st.floats(0, 1),
    from_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    max_s=st.integers(1, 30),
    min_s=st.sampled_from([0, 0.01, 0.025, 0.1, 0.5, 3]),
)
def test_parts_have_together_each_frame_of_the_whole_once(clock, seconds, rest, from_hz, max_s, min_s):
    samples = seconds * from_hz + int(rest * from_hz)
    found: list[int] = []
    for start_s, lead, kept, stretch in parts(samples, from_hz, clock.rate_hz, max_s, min_s):
        first, last = clock.part(lead, kept, stretch)
        origin = start_s * clock.rate_hz // clock.hop_samples
        found += range(origin + first, origin + last)
    assert found == list(range(clock.frames(-(-samples * clock.rate_hz // from_hz))))


@pytest.mark.parametrize("clock", [HUBERT, MFCC, MEL], ids=["hubert", "mfcc", "mel"])
@settings(deadline=None, max_examples=150)
@given(seconds=st.integers(1, 300), rest=st.integers(0, 15_999), max_s=st.integers(1, 30))
def test_every_frame_starts_in_the_part_it_belongs_to(clock, seconds, rest, max_s):
    for _, lead, kept, stretch in parts(seconds * 16_000 + rest, 16_000, 16_000, max_s, 0.1):
        first, last = clock.part(lead, kept, stretch)
        end = lead + kept + (clock.centred and lead + kept == stretch)  # a last frame may be centred on the end
        assert lead <= first * clock.hop_samples and (last - 1) * clock.hop_samples < end


def test_a_sound_that_is_one_part_keeps_all_its_frames():
    assert HUBERT.part(0, 16_000, 16_000) == (0, 49)


def test_a_part_shorter_than_a_frame_has_none():
    assert HUBERT.part(32_000, 100, 32_100) == (100, 100)
