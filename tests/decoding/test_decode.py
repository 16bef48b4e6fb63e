"""Any file of sound, told by its content, becomes the same float32 samples, cut at whole seconds; or a reason."""

import io
import math
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.decoding.decode import CONTEXT_S, Clip, Part, length_s, parts_of, resampled
from wavmill.pipeline.errors import Reject

RATE_HZ = 16_000
WHOLE = Clip(max_s=3600)
quick = settings(deadline=None, max_examples=60)


def decoded(data: bytes, clip: Clip = WHOLE, rate_hz: int = RATE_HZ, **stretch) -> list[Part]:
    return list(parts_of(io.BytesIO(data), clip, rate_hz, **stretch))


def samples(data: bytes, clip: Clip = WHOLE, rate_hz: int = RATE_HZ) -> np.ndarray:
    [part] = decoded(data, clip, rate_hz)
    return part.audio


def kept(part: Part) -> np.ndarray:
    return part.audio[part.lead_samples : part.lead_samples + part.kept_samples]


def reason(data: bytes, clip: Clip = WHOLE) -> str:
    with pytest.raises(Reject) as caught:
        decoded(data, clip)
    return caught.value.reason


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two sounds at the shift, up to 70 ms, that fits best: codecs delay."""
    middle = other[2000:10_000]
    shift = np.correlate(one[880:11_120], middle).argmax()
    return np.corrcoef(one[880 + shift : 8880 + shift], middle)[0, 1]


# ---- formats ----------------------------------------------------------------------------------------------------


def ffmpeg(sound: np.ndarray, format: str, codec: str, rate_hz: int = RATE_HZ, pictures: bool = False) -> bytes:
    """A mono sound in a container of FFmpeg's, behind a second of video if asked."""
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format=format) as container:
        video = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p") if pictures else None
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        for _ in range(25 if pictures else 0):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if video is not None:
            container.mux(video.encode(None))
    return sink.getvalue()


def with_tag(data: bytes) -> bytes:
    """The sound behind an ID3 tag of 1,000 bytes."""
    return b"ID3\x03\x00\x00\x00\x00" + bytes([1000 >> 7, 1000 & 127]) + bytes(1000) + data


FORMATS = {  # name: (makes the bytes out of (sound, wav), seconds it may be longer or shorter, correlation)
    "wav 16 bit": (lambda x, wav: wav(x), 0, 0.9999),
    "wav 24 bit": (lambda x, wav: wav(x, subtype="PCM_24"), 0, 0.999999),
    "wav float": (lambda x, wav: wav(x, subtype="FLOAT"), 0, 0.999999),
    "wav 8 bit": (lambda x, wav: wav(x, subtype="PCM_U8"), 0, 0.999),
    "wav u-law": (lambda x, wav: wav(x, subtype="ULAW"), 0, 0.99),
    "wav gsm": (lambda x, wav: wav(x, subtype="GSM610"), 0.02, 0.9),
    "aiff": (lambda x, wav: wav(x, format="AIFF"), 0, 0.9999),
    "flac": (lambda x, wav: wav(x, format="FLAC"), 0, 0.9999),
    "flac behind a tag": (lambda x, wav: with_tag(wav(x, format="FLAC")), 0, 0.9999),
    "ogg vorbis": (lambda x, wav: wav(x, format="OGG"), 0, 0.98),
    "ogg opus": (lambda x, wav: wav(x, format="OGG", subtype="OPUS"), 0.02, 0.98),
    "mp3": (lambda x, wav: wav(x, format="MP3"), 0, 0.98),
    "mp3 behind a tag": (lambda x, wav: with_tag(wav(x, format="MP3")), 0, 0.98),
    "m4a": (lambda x, wav: ffmpeg(x, "ipod", "aac"), 0.02, 0.99),
    "m4a lossless": (lambda x, wav: ffmpeg(x, "ipod", "alac"), 0, 0.9999),
    "mp4 with a video": (lambda x, wav: ffmpeg(x, "mp4", "aac", pictures=True), 0.02, 0.99),
    "aac": (lambda x, wav: ffmpeg(x, "adts", "aac"), 0.1, 0.99),
    "webm": (lambda x, wav: ffmpeg(resampled(x, RATE_HZ, 48_000), "webm", "libopus", 48_000), 0.02, 0.98),
}
every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def encoded(tone, wav):
    made: dict[str, bytes] = {}
    return lambda name: made.setdefault(name, FORMATS[name][0](tone(3), wav))


@every_format
def test_a_format_keeps_the_length(name, encoded, tone):
    assert abs(len(samples(encoded(name))) - len(tone(3))) <= FORMATS[name][1] * RATE_HZ


@every_format
def test_a_format_keeps_the_sound(name, encoded, tone):
    assert alike(samples(encoded(name)), tone(3)) > FORMATS[name][2]


@every_format
def test_a_format_keeps_the_loudness(name, encoded, tone):
    assert np.std(samples(encoded(name))) == pytest.approx(np.std(tone(3)), rel=0.1)


@every_format
def test_a_file_and_its_bytes_are_the_same_sound_whatever_the_file_is_called(name, encoded, tmp_path):
    path = tmp_path / "sound.xyz"
    path.write_bytes(encoded(name))
    with path.open("rb") as file:
        [part] = parts_of(file, WHOLE, RATE_HZ)
    assert (part.audio == samples(encoded(name))).all()


@every_format
def test_the_stretches_of_several_workers_are_those_of_one(name, encoded):
    clip = Clip(max_s=1)
    together = decoded(encoded(name), clip)
    apart = [
        *decoded(encoded(name), clip, lo=0, hi=1),
        *decoded(encoded(name), clip, lo=1, hi=2),
        *decoded(encoded(name), clip, lo=2),
    ]
    assert [part[:2] + part[3:] for part in apart] == [part[:2] + part[3:] for part in together]
    assert all((one.audio == other.audio).all() for one, other in zip(apart, together, strict=True))


@every_format
def test_parts_put_together_are_the_whole(name, encoded):
    parts = decoded(encoded(name), Clip(max_s=1))
    assert len(parts) == 3
    assert (np.concatenate([kept(part) for part in parts]) == samples(encoded(name))).all()


@every_format
def test_the_header_says_about_how_long_a_sound_is(name, encoded):
    assert length_s(io.BytesIO(encoded(name))) == pytest.approx(3, abs=0.2)


def test_a_video_without_sound_is_no_sound():
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert reason(sink.getvalue()) == "no_sound"


# ---- MP3 whose header does not say how long it is ---------------------------------------------------------------


def mp3(sound: np.ndarray, rate_hz: int, mode: str) -> bytes:
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, sound, rate_hz, format="MP3", bitrate_mode=mode, compression_level=0.3)
    return sink.getvalue()


def without_header(data: bytes) -> bytes:
    """An MP3 without the first frame, which is no sound but says how many frames follow (Xing's or Info header)."""
    version, rate, layout = data[1] >> 3 & 3, data[2] >> 2 & 3, data[2] >> 4
    v1 = version == 3
    kbits = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    kbits = kbits if v1 else [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
    rates_hz = [44_100, 48_000, 32_000] if v1 else [22_050, 24_000, 16_000]
    size = (144 if v1 else 72) * kbits[layout] * 1000 // rates_hz[rate] + (data[2] >> 1 & 1)
    assert b"Xing" in data[:size] or b"Info" in data[:size]
    return data[size:]


@pytest.fixture(scope="module")
def uneven(tone):
    """20 s, of which three quarters are nearly silent: a variable bit rate makes the few loud seconds most bytes."""

    def make(rate_hz: int) -> np.ndarray:
        return tone(20, rate_hz) * np.repeat([1e-4, 1], [15 * rate_hz, 5 * rate_hz]).astype(np.float32)

    return make


every_mp3 = pytest.mark.parametrize(
    "rate_hz, mode", [(16_000, "CONSTANT"), (16_000, "VARIABLE"), (44_100, "CONSTANT"), (44_100, "VARIABLE")]
)
FRAME_SAMPLES = 1152


@every_mp3
def test_an_mp3_without_its_header_keeps_all_its_sound(rate_hz, mode, uneven):
    data = without_header(mp3(uneven(rate_hz), rate_hz, mode))
    assert 0 <= len(samples(data, rate_hz=rate_hz)) - 20 * rate_hz < 3 * FRAME_SAMPLES


@every_mp3
def test_an_mp3_with_its_header_has_exactly_the_length_that_was_encoded(rate_hz, mode, uneven):
    assert len(samples(mp3(uneven(rate_hz), rate_hz, mode), rate_hz=rate_hz)) == 20 * rate_hz


@every_mp3
def test_two_mp3s_in_one_file_are_as_long_as_both(rate_hz, mode, uneven):
    twice = 2 * mp3(uneven(rate_hz), rate_hz, mode)
    assert 0 <= len(samples(twice, rate_hz=rate_hz)) - 40 * rate_hz < 4 * FRAME_SAMPLES


def test_a_long_mp3_is_read_without_a_click_where_blocks_meet(tone):
    rate_hz = 44_100
    sound = tone(20, rate_hz)
    error = samples(mp3(sound, rate_hz, "CONSTANT"), rate_hz=rate_hz) - sound
    loudest = np.sqrt((error.reshape(-1, 441) ** 2).mean(axis=1))  # of each 10 ms
    assert loudest[10:-10].max() < 2 * np.median(loudest)


# ---- headers that say less than there is ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def piped(wav, tone) -> bytes:
    """A FLAC of 3 s whose writer did not know its length: the 36 bits for it in STREAMINFO are zero."""
    data = bytearray(wav(tone(3), format="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_flac_written_to_a_pipe_is_read_to_its_end(piped, wav, tone):
    assert (samples(piped) == samples(wav(tone(3), format="FLAC"))).all()


def test_a_flac_written_to_a_pipe_does_not_say_how_long_it_is(piped):
    assert length_s(io.BytesIO(piped)) == 0


@pytest.mark.parametrize("said", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(said, wav, tone):
    data = bytearray(wav(tone(3)))
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", said)
    assert (samples(bytes(data)) == samples(wav(tone(3)))).all()


def test_a_long_sound_goes_to_one_worker_when_its_header_does_not_say_how_long_it_is(piped, tmp_path, monkeypatch):
    from wavmill.pipeline.store import objects, open_store

    (tmp_path / "a.flac").write_bytes(piped)
    store = open_store(str(tmp_path))
    [entry] = store.list()
    monkeypatch.setattr(objects, "LONG_BYTES", 1000)
    assert objects.ranges_of(store, entry, Clip(max_s=1)) == [(0, -1)]


# ---- channels ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stereo(tone, wav) -> bytes:
    return wav(np.stack([tone(1, hz=200), tone(1, hz=900)], axis=1), subtype="FLOAT")


@pytest.mark.parametrize("channel, hz", [(0, 200), (1, 900)])
def test_a_channel_is_taken_by_its_number(channel, hz, stereo, tone):
    assert (samples(stereo, Clip(channel=channel)) == tone(1, hz=hz)).all()


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_the_mean_of_the_channels_is_taken_unless_told_otherwise(channels, tone, wav):
    sound = np.stack([tone(1, hz=200 + 100 * number, seed=number) for number in range(channels)], axis=1)
    assert np.array_equal(samples(wav(sound, subtype="FLOAT")), sound.mean(axis=1))


def test_a_channel_that_there_is_not_is_a_reason(stereo):
    assert reason(stereo, Clip(channel=2)) == "no_channel"


def test_a_video_s_channel_that_there_is_not_is_a_reason(encoded):
    assert reason(encoded("mp4 with a video"), Clip(channel=1)) == "no_channel"


# ---- what cannot be used ----------------------------------------------------------------------------------------


def test_zero_bytes_are_empty():
    assert reason(b"") == "empty"


@pytest.mark.parametrize("data", [b"not a sound\n" * 1000, bytes(10_000), b"RIFF", b"fLaC", b"OggS" * 100, b"\x89PNG"])
def test_what_is_no_sound_is_not_audio(data):
    assert reason(data) == "not_audio"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
def test_a_flac_that_ends_early_is_corrupt(share, wav, tone):
    data = wav(tone(3), format="FLAC")
    assert reason(data[: int(share * len(data))]) == "corrupt"


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "aac"])  # which says nothing of its length
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_sound_that_ends_early_is_no_shorter_clip(name, share, encoded):
    data = encoded(name)
    assert reason(data[: int(share * len(data))]) in {"truncated", "corrupt", "not_audio"}


class Breaking(io.BytesIO):
    """A file in a network that fails when so many bytes have been read."""

    def __init__(self, data: bytes, left: int) -> None:
        super().__init__(data)
        self.left = left

    def readinto(self, into) -> int:
        self.left -= len(into)
        if self.left < 0:
            raise ConnectionError("the network failed")
        return super().readinto(into)

    def read(self, size: int | None = -1) -> bytes:
        self.left -= len(self.getbuffer()) if size is None or size < 0 else size
        if self.left < 0:
            raise ConnectionError("the network failed")
        return super().read(size)


@pytest.mark.parametrize("name", ["wav 16 bit", "flac", "ogg vorbis", "mp3", "m4a", "webm"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_network_that_fails_is_never_the_fault_of_the_sound(name, share, encoded):
    """Nor is it its end: what reads it stops, and is run again."""
    data = encoded(name)
    with pytest.raises(ConnectionError, match="the network failed"):
        list(parts_of(Breaking(data, int(share * len(data))), WHOLE, RATE_HZ))


@pytest.mark.parametrize("name", ["wav 16 bit", "wav float", "aiff"])
def test_a_sound_whose_last_sample_is_missing_is_truncated(name, encoded):
    assert reason(encoded(name)[:-2]) == "truncated"


def test_bytes_behind_a_sound_are_no_matter(encoded):
    data = encoded("wav 16 bit")
    assert (samples(data + b"LIST" + bytes(100)) == samples(data)).all()


def test_the_parts_before_the_damage_stay_good(wav, tone):
    data = wav(tone(40), format="FLAC")
    parts = parts_of(io.BytesIO(data[: len(data) * 3 // 4]), Clip(max_s=2), RATE_HZ)
    assert (kept(next(parts)) == samples(data)[: 2 * RATE_HZ]).all()
    with pytest.raises(Reject, match="corrupt"):
        list(parts)


def test_a_sampling_rate_that_cannot_be_resampled_is_a_reason(wav, tone):
    assert reason(wav(tone(), rate_hz=500)) == "bad_rate"


@pytest.mark.parametrize("seconds", [0, 0.05, 0.0999])
def test_a_sound_below_the_shortest_length_is_too_short(seconds, wav, tone):
    assert reason(wav(tone(seconds))) == "too_short"


def test_a_sound_of_the_shortest_length_is_a_clip(wav, tone):
    assert len(samples(wav(tone(0.1)))) == 1600


def test_a_sound_without_samples_is_too_short_even_where_any_length_will_do(wav, tone):
    assert reason(wav(tone(0)), Clip(min_s=0)) == "too_short"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sound_that_is_not_finite_is_a_reason(value, wav, tone):
    sound = tone()
    sound[100] = value
    [part] = decoded(wav(sound, subtype="FLOAT"))
    assert part.reject.reason == "non_finite"


def test_a_nan_rejects_the_part_it_is_in_and_no_part_that_does_not_hear_it(wav, tone):
    sound = tone(24)
    sound[12 * RATE_HZ] = np.nan  # in the middle of the third part of 5 s, further than the context from the others
    parts = decoded(wav(sound, subtype="FLOAT"), Clip(max_s=5))
    assert [part.reject is not None for part in parts] == [False, False, True, False, False]


def test_a_nan_in_the_context_rejects_too(wav, tone):
    sound = tone(10)
    sound[int(5.5 * RATE_HZ)] = np.nan
    parts = decoded(wav(sound, subtype="FLOAT"), Clip(max_s=5))
    assert [part.reject is not None for part in parts] == [True, True]


# ---- parts ------------------------------------------------------------------------------------------------------


def counting(length: int) -> np.ndarray:
    """A sound no two of whose samples are equal."""
    return np.arange(1, 1 + length, dtype=np.float32) / (1 << 20)


lengths = st.integers(1, 40_000)  # samples at 1 kHz
max_lengths = st.integers(1, 12)
min_lengths = st.sampled_from([0, 0.05, 0.1, 0.5, 2.5])


@quick
@given(length=lengths, max_s=max_lengths, min_s=min_lengths)
def test_a_sound_is_cut_at_whole_seconds_and_a_short_rest_joins_the_part_before(length, max_s, min_s, wav):
    min_s = min(min_s, max_s)
    shortest = max(1, round(min_s * 1000))
    if length < shortest:
        return
    starts = [at for at in range(0, length, max_s * 1000) if at == 0 or length - at >= shortest]
    ends = [*starts[1:], length]
    parts = decoded(wav(counting(length), 1000, subtype="FLOAT"), Clip(max_s=max_s, min_s=min_s), 1000)
    assert [(part.start_s * 1000, part.kept_samples) for part in parts] == [
        (start, end - start) for start, end in zip(starts, ends, strict=True)
    ]


@quick
@given(length=lengths, max_s=max_lengths, min_s=min_lengths)
def test_around_a_part_lie_two_seconds_of_the_same_sound_where_there_are(length, max_s, min_s, wav):
    min_s = min(min_s, max_s)
    sound, context = counting(length), CONTEXT_S * 1000
    if length < min_s * 1000:
        return
    for part in decoded(wav(sound, 1000, subtype="FLOAT"), Clip(max_s=max_s, min_s=min_s), 1000):
        start = round(part.start_s * 1000)
        end = start + part.kept_samples
        assert part.lead_samples == min(context, start)
        assert (part.audio == sound[start - part.lead_samples : min(end + context, length)]).all()


@quick
@given(length=lengths, max_s=max_lengths, min_s=min_lengths, per_worker=st.integers(1, 4))
def test_several_workers_make_the_clips_that_one_makes(length, max_s, min_s, per_worker, wav):
    clip = Clip(max_s=max_s, min_s=min(min_s, max_s))
    if length < clip.min_s * 1000:
        return
    data, step = wav(counting(length), 1000, subtype="FLOAT"), per_worker * max_s
    starts = [lo for lo in range(0, length // 1000, step) if lo == 0 or length - lo * 1000 >= max_s * 1000] or [0]
    apart: list[Part] = []
    for lo, hi in zip(starts, [*starts[1:], -1], strict=True):
        apart += decoded(data, clip, 1000, lo=lo, hi=hi)
    together = decoded(data, clip, 1000)
    assert [part[:2] + part[3:] for part in apart] == [part[:2] + part[3:] for part in together]
    assert all((one.audio == other.audio).all() for one, other in zip(apart, together, strict=True))


def test_a_stretch_that_only_the_header_promised_is_rejected_as_such(wav, tone):
    with pytest.raises(Reject, match="shorter_than_header"):
        decoded(wav(tone(3)), Clip(max_s=2), lo=4)


def test_a_shortest_length_above_the_longest_is_refused():
    with pytest.raises(ValueError, match="cannot be at least 3 s long"):
        Clip(min_s=3, max_s=2)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_several_workers_make_the_clips_that_one_makes_at_another_rate(format, wav, tone):
    data, clip = wav(tone(11, 44_100), 44_100, format=format), Clip(max_s=2)
    apart = [*decoded(data, clip, lo=0, hi=4), *decoded(data, clip, lo=4, hi=8), *decoded(data, clip, lo=8)]
    together = decoded(data, clip)
    assert len(apart) == len(together) == 6
    assert all((one.audio == other.audio).all() for one, other in zip(apart, together, strict=True))


def test_a_clip_is_whole_only_when_the_sound_is_one_clip(wav, tone):
    assert [part.whole for part in decoded(wav(tone(2)))] == [True]
    assert [part.whole for part in decoded(wav(tone(3)), Clip(max_s=1))] == [False, False, False]


def test_parts_put_together_are_the_whole_at_another_rate(wav, tone):
    data = wav(tone(9.3, 44_100), 44_100)
    joined = np.concatenate([kept(part) for part in decoded(data, Clip(max_s=2))])
    whole = samples(data)
    assert joined.shape == whole.shape and np.abs(joined - whole).max() < 1e-5


# ---- a stretch of a sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format, subtype", [("WAV", "FLOAT"), ("FLAC", None), ("OGG", None), ("WAV", "GSM610")])
def test_a_stretch_is_that_stretch_of_the_whole(format, subtype, wav, tone):
    data = wav(tone(9), format=format, subtype=subtype)
    [part] = decoded(data, start_s=1.5, end_s=7.25)
    assert (part.start_s, part.whole) == (1.5, True)
    assert (part.audio == samples(data)[24_000:116_000]).all()


def test_a_stretch_is_cut_from_where_it_starts(wav, tone):
    parts = decoded(wav(tone(9)), Clip(max_s=2), start_s=1.5, end_s=7.0)
    assert [(part.start_s, part.kept_samples / RATE_HZ) for part in parts] == [(1.5, 2), (3.5, 2), (5.5, 1.5)]


def test_a_stretch_hears_nothing_from_outside(wav, tone):
    parts = decoded(wav(tone(9)), Clip(max_s=2), start_s=1.5, end_s=7.0)
    assert parts[0].lead_samples == 0
    assert len(parts[-1].audio) == parts[-1].lead_samples + parts[-1].kept_samples


@quick
@given(cuts=st.lists(st.integers(1, 2999), min_size=1, max_size=4, unique=True).map(sorted))
@pytest.mark.parametrize("rate_hz", [8000, 22_050])
def test_stretches_that_meet_lose_and_repeat_no_sample(rate_hz, cuts, wav):
    sound = counting(3 * rate_hz)
    data = wav(sound, rate_hz, subtype="FLOAT")
    stretches = [
        decoded(data, Clip(min_s=0), rate_hz, start_s=start_s, end_s=end_s)[0].audio
        for start_s, end_s in pairwise([0.0, *(cut / 1000 for cut in cuts), math.inf])
    ]
    assert (np.concatenate(stretches) == sound).all()


@pytest.mark.parametrize("start_s, end_s", [(5.0, 6.0), (1.0, 1.0), (2.0, 1.0), (2.95, 9.0)])
def test_a_stretch_without_sound_is_too_short(start_s, end_s, wav, tone):
    with pytest.raises(Reject, match="too_short"):
        decoded(wav(tone(3)), start_s=start_s, end_s=end_s)


def test_a_stretch_ends_where_the_sound_does(wav, tone):
    [part] = decoded(wav(tone(3)), start_s=2.0, end_s=9.0)
    assert part.kept_samples == RATE_HZ


# ---- resampling -------------------------------------------------------------------------------------------------


@quick
@given(
    length=st.integers(1, 5000),
    from_hz=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    to_hz=st.sampled_from([8000, 16_000, 24_000, 44_100]),
)
def test_a_resampled_sound_has_its_length_rounded_up(length, from_hz, to_hz):
    made = resampled(np.ones(length, np.float32), from_hz, to_hz)
    assert len(made) == math.ceil(length * to_hz / from_hz) and made.dtype == np.float32


@pytest.mark.parametrize("from_hz", [22_050, 44_100, 48_000])
def test_a_resampled_tone_is_the_tone_at_the_other_rate(from_hz):
    def sine(rate_hz):
        return np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz).astype(np.float32)

    error = resampled(sine(from_hz), from_hz, RATE_HZ) - sine(RATE_HZ)
    assert np.abs(error[1000:-1000]).max() < 1e-4


def test_a_sound_at_the_rate_asked_for_is_not_touched(tone):
    assert (resampled(tone(), RATE_HZ, RATE_HZ) == tone()).all()


@pytest.mark.parametrize("clip", [{"min_s": -1}, {"max_s": 0}, {"max_s": 4000}, {"channel": "left"}, {"channel": -1}])
def test_a_clip_that_makes_no_sense_is_refused(clip):
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        Clip(**clip)


def test_the_file_is_left_open_for_who_opened_it(tmp_path: Path, wav, tone):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone()))
    with path.open("rb") as file:
        list(parts_of(file, WHOLE, RATE_HZ))
        assert file.seek(0) == 0 and file.read(4) == b"RIFF"
