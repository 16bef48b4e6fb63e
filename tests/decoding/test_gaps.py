"""What is missing inside a sound is measured: silence in its place, a notice, and a reject when it is too much."""

import io

import numpy as np
import pytest
from container_files import ffmpeg, made, sound, whole

from wavmill.pipeline.decoding.decode import Clip, Part, parts_of
from wavmill.pipeline.errors import Reject

RATE_HZ = 16_000
FRAME_S = 1024 / RATE_HZ  # of AAC


def decoded(data: bytes, rate_hz: int = RATE_HZ, **options) -> list[Part]:
    clip = Clip(**{"min_s": 0, "max_s": 3600, **options})
    return list(parts_of(io.BytesIO(data), clip, rate_hz))


def seconds(data: bytes, rate_hz: int = RATE_HZ, **options) -> float:
    [part] = decoded(data, rate_hz, **options)
    assert part.reject is None
    return part.kept_samples / rate_hz


@pytest.fixture
def file_of(tmp_path):
    """Make a file by FFmpeg's command line: (name, samples, arguments before the input, those of the output)."""

    def make(name: str, samples: np.ndarray, before: str = "", after: str = "", rate_hz: int = RATE_HZ) -> bytes:
        import soundfile

        source = tmp_path / "source.wav"
        soundfile.write(source, samples, rate_hz, subtype="PCM_16")
        ffmpeg(*before.split(), "-i", str(source), *after.split(), str(tmp_path / name))
        return (tmp_path / name).read_bytes()

    return make


@pytest.fixture
def without_packets(file_of, tmp_path):
    """A file of 4 s of AAC whose packets [first, last] are left out."""

    def make(name: str, first: int, last: int) -> bytes:
        source = tmp_path / "all.m4a"
        source.write_bytes(file_of("all.m4a", sound(RATE_HZ, 4.0), after="-c:a aac"))
        drop = f"noise=drop='between(n\\,{first}\\,{last})'"
        ffmpeg("-i", str(source), "-c", "copy", "-bsf:a", drop, str(tmp_path / name))
        return (tmp_path / name).read_bytes()

    return make


# ---- a sound that begins late -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mka", "a.mkv", "a.webm", "a.m4a", "a.mov", "a.ts"])
@pytest.mark.parametrize("late_s", [0.05, 0.15, 0.5, 3.0])
def test_a_sound_that_begins_late_is_as_long_as_one_that_does_not(name, late_s, file_of):
    codec, rate_hz = ("libopus", 48_000) if name == "a.webm" else ("aac", RATE_HZ)
    samples = sound(rate_hz, 2.0)
    late = file_of(name, samples, f"-itsoffset {late_s}", f"-c:a {codec}", rate_hz)
    [part] = decoded(late, rate_hz)
    punctual_s = seconds(file_of(name, samples, "", f"-c:a {codec}", rate_hz), rate_hz)
    assert part.reject is None and part.notice == ""
    assert part.kept_samples / rate_hz == pytest.approx(
        punctual_s, abs=1.1 * FRAME_S
    )  # with what the encoder puts before


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_late_sound_that_is_cut_is_still_truncated(share, file_of):
    data = file_of("a.mka", sound(RATE_HZ, 2.0), "-itsoffset 0.5", "-c:a aac")
    with pytest.raises(Reject, match="truncated"):
        decoded(data[: int(share * len(data))])


# ---- holes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.mov", "a.ts"])
def test_a_hole_above_the_limit_is_rejected_as_what_it_is(name, without_packets):
    [part] = decoded(without_packets(name, 30, 45))
    assert part.reject.reason == "gap"
    missing_s, at_s = float(part.reject.message.split()[0]), float(part.reject.message.split("at ")[1].split()[0])
    assert missing_s == pytest.approx(16 * FRAME_S, abs=0.005) and at_s == pytest.approx(30 * FRAME_S, abs=2 * FRAME_S)


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.ts"])
def test_what_follows_a_small_hole_stands_at_its_own_time(name, without_packets):
    all_there, [part] = decoded(without_packets(name, -1, -1))[0].audio, decoded(without_packets(name, 30, 30))
    assert part.reject is None and part.notice == "gap"
    late = slice(3 * RATE_HZ, 3 * RATE_HZ + 8000)
    assert np.corrcoef(part.audio[late], all_there[late])[0, 1] > 0.99
    assert len(part.audio) == len(all_there)


def test_a_hole_costs_only_the_clips_that_hear_it(without_packets):
    parts = decoded(without_packets("a.m4a", 2, 10), max_s=1)
    assert [part.reject is None for part in parts[:4]] == [False, False, False, True]  # the third by its context
    assert [part.start_s for part in parts[:4]] == [0, 1, 2, 3]


def test_more_is_let_pass_by_the_job(without_packets):
    [part] = decoded(without_packets("a.m4a", 30, 45), max_gap_s=2)
    assert part.reject is None and part.notice == "gap"
    assert decoded(without_packets("a.m4a", 30, 30), max_gap_s=0)[0].reject.reason == "gap"


def test_a_sound_without_a_hole_has_no_notice():
    for name in ("M4A, AAC", "Matroska, AAC", "MP4 in fragments", "MP3", "AAC (ADTS)", "MPEG-TS", "FLV"):
        [part] = decoded(whole(name))
        assert part.notice == "" and part.reject is None


@pytest.mark.parametrize("extra_s", [0.02, 0.06])
def test_a_fragmented_mp4_whose_first_gap_is_longer_is_done(extra_s, file_of, tmp_path):
    (tmp_path / "all.m4a").write_bytes(file_of("all.m4a", sound(RATE_HZ, 2.0), after="-c:a aac"))
    shift = f"setts=ts='if(eq(N,0),TS-{extra_s}*{RATE_HZ},TS)'"
    flags = "-movflags frag_keyframe+empty_moov -frag_duration 300000"
    ffmpeg("-i", str(tmp_path / "all.m4a"), "-c", "copy", "-bsf:a", shift, *flags.split(), str(tmp_path / "a.mp4"))
    assert seconds((tmp_path / "a.mp4").read_bytes()) == pytest.approx(2.0 + extra_s, abs=2 * FRAME_S)


# ---- bytes between frames, frames that cannot be decoded --------------------------------------------------------


TAG = b"ID3\x04\0\0\0\0\x08\0" + bytes(1024)


@pytest.mark.parametrize("between", [b"", TAG, b"TAG" + bytes(125), bytes(700), b"\x01" * 33])
@pytest.mark.parametrize("kind", ["MP3", "MP3 without a length", "AAC (ADTS)"])
def test_tags_between_joined_sounds_cost_no_sound(kind, between):
    data, rate_hz = whole(kind), 44_100 if "without" in kind else RATE_HZ
    came = seconds(data + between + data, rate_hz)
    assert 2.0 <= came < 2.2


def test_joined_mp3s_with_a_tag_between_are_as_long_as_ffmpeg_reads(tmp_path):
    data = made("-c:a libmp3lame -f mp3".split(), sound(44_100, 2.0), 44_100)
    assert data[:3] == b"ID3"
    (tmp_path / "a.mp3").write_bytes(data + data)
    judged = len(ffmpeg("-i", str(tmp_path / "a.mp3"), "-f", "s16le", "-ac", "1", "-")) // 2
    assert seconds(data + data, 44_100) == judged / 44_100


@pytest.mark.parametrize("kind", ["AAC (ADTS)", "AC-3"])
def test_a_frame_that_is_refused_is_a_measured_gap(kind):
    rate_hz, data = (48_000, whole(kind)) if kind == "AC-3" else (RATE_HZ, whole(kind))
    sync = b"\x0b\x77" if kind == "AC-3" else data[:2]
    at = data.index(sync, len(data) // 2)
    damaged = data[: at + 8] + b"\xff" * 60 + data[at + 68 :]
    [part] = decoded(damaged, rate_hz, max_gap_s=0.2)
    assert part.reject is None and part.kept_samples == decoded(data, rate_hz)[0].kept_samples


def test_a_sound_none_of_whose_frames_can_be_decoded_is_corrupt():
    data = bytearray(whole("M4A, AAC"))
    at = data.index(b"mdat") + 4
    data[at : data.index(b"moov") - 4] = b"\xff" * (data.index(b"moov") - 4 - at)
    with pytest.raises(Reject, match="corrupt"):
        decoded(bytes(data))


# ---- what changes on the way ------------------------------------------------------------------------------------


def bare(channels: int, rate_hz: int, codec: str) -> bytes:
    extra = "-write_xing 0 -id3v2_version 0" if codec == "libmp3lame" else ""
    container = "mp3" if codec == "libmp3lame" else "adts"
    return made(f"-c:a {codec} -ac {channels} {extra} -f {container}".split(), sound(rate_hz, 2.0), rate_hz)


@pytest.mark.parametrize("codec", ["libmp3lame", "aac"])
@pytest.mark.parametrize("channels", [(1, 2), (2, 1)])
def test_a_number_of_channels_that_changes_costs_no_sound(codec, channels):
    pieces = [bare(count, 44_100, codec) for count in channels]
    apart = sum(seconds(piece, 44_100) for piece in pieces)
    assert seconds(b"".join(pieces), 44_100) == pytest.approx(apart, abs=0.001)


def test_a_channel_that_goes_away_is_a_reason():
    with pytest.raises(Reject, match="no_channel"):
        decoded(bare(2, 44_100, "libmp3lame") + bare(1, 44_100, "libmp3lame"), channel=1)


@pytest.mark.parametrize("codec", ["libmp3lame", "aac"])
@pytest.mark.parametrize("rates_hz", [(44_100, 48_000), (48_000, 32_000)])
def test_a_rate_that_changes_is_a_reason_in_plain_words(codec, rates_hz):
    with pytest.raises(Reject, match="rate_changes") as caught:
        decoded(b"".join(bare(1, rate_hz, codec) for rate_hz in rates_hz))
    assert f"from {rates_hz[0]:,} to {rates_hz[1]:,} Hz at 2." in caught.value.message


# ---- tracks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """Files with three audio tracks of 1, 2 and 3 s, the last with two channels: {(suffix, default): path}."""
    import soundfile

    folder = tmp_path_factory.mktemp("tracks")
    for number in range(3):
        samples = sound(RATE_HZ, number + 1.0)
        soundfile.write(folder / f"{number}.wav", np.stack([samples] * 2, 1) if number == 2 else samples, RATE_HZ)
    inputs = [word for number in range(3) for word in ("-i", str(folder / f"{number}.wav"))]
    made = {}
    for suffix in ("mka", "mp4", "mov", "ts"):
        for default in (None, 0, 1):
            path = folder / f"{default}.{suffix}"
            marks = [f"-disposition:a:{number} {'default' if number == default else 0}" for number in range(3)]
            maps = "-map 0 -map 1 -map 2 -c:a aac".split()
            ffmpeg(*inputs, *maps, *" ".join(marks).split(), str(path))
            made[suffix, default] = path
    return made


@pytest.mark.parametrize("default", [None, 0, 1])
@pytest.mark.parametrize("suffix", ["mka", "mp4", "mov", "ts"])
def test_the_track_is_taken_that_ffmpeg_takes(suffix, default, tracks):
    path = tracks[suffix, default]
    judged = len(ffmpeg("-i", str(path), "-f", "s16le", "-ac", "1", "-")) / 2 / RATE_HZ
    assert seconds(path.read_bytes()) == pytest.approx(judged, abs=0.2)


@pytest.mark.parametrize("track", [0, 1, 2])
def test_a_track_is_taken_by_its_number(track, tracks):
    assert seconds(tracks["mka", 0].read_bytes(), track=track) == pytest.approx(track + 1, abs=0.2)


@pytest.mark.parametrize("name, track", [("M4A, AAC", 1), ("WAV", 1), ("Ogg Vorbis", 2)])
def test_a_track_that_is_not_there_is_a_reason(name, track):
    with pytest.raises(Reject, match="no_track"):
        decoded(whole(name), track=track)


def test_the_first_track_of_a_sound_with_one_is_the_sound():
    assert decoded(whole("WAV"), track=0)[0].kept_samples == RATE_HZ


def test_of_several_streams_of_sound_in_an_ogg_one_is_taken_by_its_number(tmp_path):
    import soundfile

    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", sound(RATE_HZ, number + 1.0), RATE_HZ)
    inputs = [word for number in range(2) for word in ("-i", str(tmp_path / f"{number}.wav"))]
    ffmpeg(*inputs, *"-map 0 -map 1 -c:a libvorbis".split(), str(tmp_path / "a.ogg"))
    for track in range(2):
        assert seconds((tmp_path / "a.ogg").read_bytes(), track=track) == pytest.approx(track + 1, abs=0.1)


def test_an_option_at_its_default_changes_no_recipe():
    recipe = Clip().recipe()
    assert "track" not in recipe and "max_gap_s" not in recipe
    assert Clip(track=0).recipe()["track"] == 0 and Clip(max_gap_s=0).recipe()["max_gap_s"] == 0


# ---- films without sound ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.wmv"])
def test_a_film_without_sound_is_no_sound(name, tmp_path):
    ffmpeg(*"-f lavfi -i testsrc2=s=64x64:r=25:d=1".split(), str(tmp_path / name))
    with pytest.raises(Reject, match="no_sound"):
        decoded((tmp_path / name).read_bytes())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.webp"])
def test_a_picture_is_not_audio(name, tmp_path):
    ffmpeg(*"-f lavfi -i testsrc2=s=64x64:r=1:d=1 -frames:v 1".split(), str(tmp_path / name))
    with pytest.raises(Reject, match="not_audio"):
        decoded((tmp_path / name).read_bytes())
