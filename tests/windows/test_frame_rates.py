"""Which films have a constant rate: all that were written with one, in any container, and none whose gaps differ."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from container_files import ffmpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.containers.video import STANDARD_FPS, Video, rate_of, video_of
from wavmill.pipeline.errors import Reject

CONTAINERS = {
    "mp4": "libx264", "mov": "libx264", "webm": "libvpx", "matroska": "libx264", "avi": "libx264", "mpegts": "libx264",
    "flv": "flv1",
}  # fmt: skip
ODD = ["12.5", "15", "29.97", "23.976", "7", "18", "29.5", "16000/1001"]
FINE = Fraction(1, 9_000)


def film_of(container: str, fps: Fraction, count: int, gaps_s: list[Fraction] | None = None, **options: str) -> bytes:
    """A film without sound: at a constant rate, or with gaps that come round again and again."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container, options=options) as out:
        stream = out.add_stream(CONTAINERS[container], rate=fps)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        tick = 1 / fps if gaps_s is None else FINE
        if gaps_s is not None:
            stream.time_base = stream.codec_context.time_base = tick
        at = Fraction(0)
        for i in range(count):
            picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 5 * i % 256, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(at / tick), tick
            out.mux(stream.encode(picture))
            at += 1 / fps if gaps_s is None else gaps_s[i % len(gaps_s)]
        out.mux(stream.encode())
    return sink.getvalue()


@pytest.mark.parametrize("container", CONTAINERS)
def test_films_of_every_standard_rate_and_odd_ones_have_the_rate_they_were_written_with(container):
    for fps in [*STANDARD_FPS, *map(Fraction, ODD)]:
        found = video_of(io.BytesIO(film_of(container, fps, 61)))
        assert found is not None and found.frames == 61
        near = abs(float(found.fps / fps) - 1)
        whole_ms = container in ("webm", "matroska", "flv") and (fps not in STANDARD_FPS or fps > 100)
        assert near < 2e-3 if whole_ms else near < 1e-5, (fps, found)
        if fps in STANDARD_FPS and not whole_ms:
            assert found.fps == fps


@pytest.mark.parametrize("timescale", ["600", "1000", "12800", "90000"])
def test_whatever_the_timescale_of_an_mp4_a_constant_film_is_constant(timescale):
    for fps in (Fraction(30_000, 1001), Fraction(24), Fraction(25, 2), Fraction(60)):
        found = video_of(io.BytesIO(film_of("mov", fps, 61, video_track_timescale=timescale)))
        assert found == Video(61, fps)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mov", "mpegts"])
@pytest.mark.parametrize("gaps_ms", [(20, 60), (21, 59), (30, 50), (35, 45), (10, 20), (40, 80), (33, 33, 34, 100)])
def test_films_whose_gaps_differ_are_refused(container, gaps_ms):
    data = film_of(container, Fraction(25), 50, [Fraction(gap, 1000) for gap in gaps_ms])
    with pytest.raises(Reject, match=f"{min(gaps_ms)} to {max(gaps_ms)} ms apart") as found:
        video_of(io.BytesIO(data))
    assert found.value.reason == "variable_frame_rate"


def test_the_first_gap_of_a_fragmented_mp4_may_hold_the_priming_of_its_sound(tmp_path):
    """FFmpeg writes it so: 40 ms and 64 ms of AAC's priming, as without an index there is no list of edits."""
    ffmpeg(
        *"-f lavfi -i testsrc2=s=64x64:r=25:d=2 -f lavfi -i sine=d=2 -c:v mpeg4 -c:a aac".split(),
        *"-movflags frag_keyframe+empty_moov".split(),
        str(path := tmp_path / "film.mp4"),
    )
    with path.open("rb") as file:
        assert video_of(file) == Video(50, Fraction(25))


TICKS = st.sampled_from([Fraction(1, 1000), FINE, Fraction(1, 12_800), Fraction(1, 600), Fraction(1, 30_000)])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(5, 120), min_size=2, max_size=5), st.integers(20, 200), TICKS)
def test_gaps_that_come_round_are_constant_only_if_rounding_or_a_clock_explains_them(gaps_ms, count, tick_s):
    """By the places of the frames: how far they are from those of the rate that the gaps have on average."""
    at_ms = np.cumsum([0, *(gaps_ms[i % len(gaps_ms)] for i in range(count - 1))])
    times = [round(Fraction(int(at), 1000) / tick_s) for at in at_ms]
    mean_ms = sum(gaps_ms) / len(gaps_ms)
    off_ms = [sum(gaps_ms[:i]) - i * mean_ms for i in range(len(gaps_ms))]
    found = rate_of(times, tick_s, [])
    if max(off_ms) - min(off_ms) > 0.25 * mean_ms + 5:
        assert found is None
    if len({*gaps_ms}) == 1:
        assert found is not None and abs(float(found) * mean_ms / 1000 - 1) < 0.01


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(st.sampled_from(STANDARD_FPS), st.fractions(5, 120, max_denominator=50)), st.integers(2, 400), TICKS,
    st.fractions(0, 100, max_denominator=7), st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_constant_rate_is_one_however_its_times_are_rounded(fps, count, tick_s, start_s, through_ms, down):
    def rounded(time: Fraction, tick: Fraction) -> int:
        return int(time / tick) if down else round(time / tick)

    places = [start_s + i / fps for i in range(count)]
    if through_ms:
        places = [rounded(place, Fraction(1, 1000)) * Fraction(1, 1000) for place in places]
    times = [rounded(place, tick_s) for place in places]
    found = rate_of(times, tick_s, [fps])
    assert found is not None
    assert abs((count - 1) / found - (count - 1) / fps) < 2 * tick_s + Fraction(3, 1000)
    if fps in STANDARD_FPS and count >= 400:
        assert found == fps


@pytest.mark.parametrize("container", ["mp4", "avi", "matroska"])
@pytest.mark.parametrize("gone", [1, 20, 40])
def test_a_film_with_a_frame_missing_is_refused_in_every_container(container, gone):
    sink, fps = io.BytesIO(), Fraction(25)
    with av.open(sink, "w", format=container) as out:
        stream = out.add_stream(CONTAINERS[container], rate=fps)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for i in (i for i in range(50) if i != gone):
            picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), i, np.uint8), format="rgb24")
            picture.pts, picture.time_base = i, 1 / fps
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    with pytest.raises(Reject) as found:
        video_of(io.BytesIO(sink.getvalue()))
    assert found.value.reason == "variable_frame_rate"
