"""Every container: is the sound all there, and is it the only one? Whatever was done to the file, nothing is lost."""

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from container_files import FORMATS, sound, streamed, whole, written
from places import ROOT

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip, length_s, parts_of
from wavmill.pipeline.errors import Reject
from wavmill.pipeline.store.objects import SOUNDS

DOCS = ROOT / "docs" / "containers.md"
UNKNOWN = "cannot know"
CLIP = Clip(min_s=0, max_s=3600)
MISSING = {"truncated", "corrupt", "not_audio"}  # reasons of a file that was cut
WITHOUT_RULE = {  # containers that no rule is known for, or none that finds everything
    "MP2", "DTS", "AMR", "MPEG-TS", "RealMedia", "NUT", "SWF", "TrueHD", "IRCAM", "PAF", "PVF", "MAT4", "MAT5",
    "MPC 2000", "SDS", "WVE", "XI", "WTV", "MXF",
}  # fmt: skip
TELLS_NOTHING_STREAMED = WITHOUT_RULE | {
    "WAV", "WAV, ADPCM", "WAV, MP3 in it", "RF64", "W64", "AVI", "AVI, MP3 in it", "AIFF", "AU", "CAF", "SoX",
    "WMA", "WMV",
}  # fmt: skip
every_format = pytest.mark.parametrize("name", FORMATS)


def outcome(data: bytes, rate_hz: int) -> int | str:
    """Samples of a sound that is done, or the reason of its reject."""
    parts = []
    try:
        parts = [*parts_of(io.BytesIO(data), CLIP, rate_hz)]
    except Reject as reject:
        return reject.reason
    rejected = [part.reject.reason for part in parts if part.reject]
    return rejected[0] if rejected else sum(part.kept_samples for part in parts)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut at a third": lambda data: data[: len(data) // 3 + 7],
    "cut in the last 1 %": lambda data: data[: int(len(data) * 0.993)],
    "joined": lambda data: data + data,
    "joined, a byte between": lambda data: data + b"\1" + data,
    "trailing bytes": lambda data: data + bytes(1001),
}


@cache
def row(name: str) -> dict[str, str]:
    """In words, what comes of a file of a format that was changed."""
    rate_hz, frames = FORMATS[name].rate_hz, written(name)
    words = {}
    for change, apply in {"whole": lambda data: data, **CHANGES}.items():
        came = outcome(apply(whole(name)), rate_hz)
        wanted = 2 * frames if "joined" in change else frames
        if isinstance(came, str):
            words[change] = f"`{came}`"
        elif came < wanted:
            words[change] = UNKNOWN
        elif "cut" in change:
            words[change] = "no sound is missing"
        else:
            words[change] = "both are read" if "joined" in change else "known"
    piped = streamed(name)
    words["streamed"] = words["streamed, cut in the middle"] = "not written so"
    if piped is not None:
        for change, data in {"streamed": piped, "streamed, cut in the middle": piped[: len(piped) // 2 + 7]}.items():
            came = outcome(data, rate_hz)
            words[change] = f"`{came}`" if isinstance(came, str) else "known" if came >= frames else UNKNOWN
    return words


@every_format
def test_a_whole_sound_has_all_its_samples_and_no_second_more(name):
    came, frames = outcome(whole(name), FORMATS[name].rate_hz), written(name)
    assert isinstance(came, int) and frames <= came < frames + 0.2 * FORMATS[name].rate_hz


@every_format
def test_a_sound_written_to_a_pipe_has_all_its_samples(name):
    if (data := streamed(name)) is None or name == "WTV":  # which FFmpeg itself does not read then
        return
    came, frames = outcome(data, FORMATS[name].rate_hz), written(name)
    assert isinstance(came, int) and frames <= came < frames + 0.2 * FORMATS[name].rate_hz


@every_format
@pytest.mark.parametrize("change", ["cut at a third", "cut in the last 1 %"])
def test_a_cut_sound_is_rejected_unless_none_of_it_is_missing(name, change):
    came = row(name)[change]
    assert came.strip("`") in {*MISSING, "no sound is missing"} or (came == UNKNOWN and name in WITHOUT_RULE)


@every_format
def test_a_sound_written_to_a_pipe_and_cut_is_rejected_unless_its_header_cannot_tell(name):
    came = row(name)["streamed, cut in the middle"]
    assert came.strip("`") in {*MISSING, "not written so"} or (came == UNKNOWN and name in TELLS_NOTHING_STREAMED)


@every_format
@pytest.mark.parametrize("change", ["joined", "joined, a byte between"])
def test_of_two_sounds_in_a_file_both_are_read_or_the_file_is_rejected(name, change):
    came = row(name)[change]
    assert came.strip("`") in {"joined", "both are read", *MISSING} or (came == UNKNOWN and name in WITHOUT_RULE)


@every_format
def test_what_follows_a_sound_and_is_none_costs_no_sound(name):
    came = row(name)["trailing bytes"]
    assert came == "known" or name in {"NUT", "HTK"}


def test_a_folder_is_searched_for_every_container_that_holds_sound():
    """.ts is left out: more of those files hold TypeScript."""
    wanted = "wav rf64 w64 avi aiff aifc 8svx au caf voc sph avr flac ogg opus oga ogv spx m4a mp4 mov 3gp mka mkv webm"
    wanted += " wma wmv asf mp3 mp2 aac ac3 eac3 dts amr mts m2ts mpg mpeg vob flv wv tta sox mxf wtv rm"
    assert {*wanted.split()} <= SOUNDS


def table() -> str:
    """The table of docs/containers.md."""
    columns = ["whole", "cut at a third", "cut in the last 1 %", "joined", "joined, a byte between"]
    columns += ["streamed", "streamed, cut in the middle"]
    lines = [f"| container | {' | '.join(columns)} | trailing bytes |", f"|---|{'---|' * (len(columns) + 1)}"]
    for name in FORMATS:
        words = row(name)
        lines.append(f"| {name} | {' | '.join(words[column] for column in [*columns, 'trailing bytes'])} |")
    return "\n".join(lines)


def test_the_table_in_the_docs_is_what_happens():
    """Where it differs, the new one is in the message: put it into docs/containers.md when it is right."""
    assert table() in DOCS.read_text(), "\n" + table()


def test_a_cut_file_of_the_system_is_rejected_behind_the_fence(tmp_path):
    path = tmp_path / "a.caf"
    path.write_bytes(whole("CAF")[:-1000])
    with path.open("rb") as file, pytest.raises(Reject, match="truncated"):
        list(fence.parts_of(file, CLIP, 16_000))


# ---- what stands between two sounds -----------------------------------------------------------------------------


@pytest.mark.parametrize("between", [b"", b"\0", b"\0\0\0", b"LIST\x04\0\0\0abcd", bytes(5000)])
@pytest.mark.parametrize("name", ["WAV", "RF64", "AIFF", "AU", "CAF", "VOC", "M4A, AAC", "WMA", "Matroska, AAC"])
def test_a_second_sound_is_found_whatever_stands_before_it(name, between):
    assert outcome(whole(name) + between + whole(name), FORMATS[name].rate_hz) == "joined"


@pytest.mark.parametrize("second", ["WAV", "AIFF", "AU", "CAF", "VOC", "FLAC", "Ogg Vorbis", "M4A, AAC", "WMA", "W64"])
@pytest.mark.parametrize("first", ["WAV", "AU", "Ogg Opus", "M4A, ALAC"])
def test_a_second_sound_of_another_kind_is_found(first, second):
    came = outcome(whole(first) + whole(second), FORMATS[first].rate_hz)
    assert isinstance(came, str) or came >= 2 * written(first)


# ---- sizes that are not true ------------------------------------------------------------------------------------


def giant(path: Path, name: str, header_size: int | None) -> float:
    """A sparse file of 4 GiB and half a second of silence, whose header gives a size of 32 bits -> its seconds."""
    rate_hz, frame_bytes = 192_000, 32
    size = (1 << 32) + rate_hz // 2 * frame_bytes
    said = size % (1 << 32) if header_size is None else header_size
    if name == "WAV":
        form = struct.pack("<HHIIHH", 3, 8, rate_hz, rate_hz * frame_bytes, frame_bytes, 32)
        head = b"RIFF" + struct.pack("<I", (said + 36) % (1 << 32)) + b"WAVEfmt \x10\0\0\0" + form
        head += b"data" + struct.pack("<I", said)
    else:
        head = b".snd" + struct.pack(">IIIII", 24, said, 6, rate_hz, 8)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return size / frame_bytes / rate_hz


@pytest.mark.parametrize("name", ["WAV", "AU"])
def test_a_size_that_wrapped_at_4_gib_costs_no_sound(name, tmp_path):
    seconds = giant(tmp_path / "a", name, None)
    with (tmp_path / "a").open("rb") as file:
        assert length_s(file) == pytest.approx(seconds)
        parts = [*parts_of(file, Clip(max_s=30), 8000, lo=690)]
    assert parts[-1].start_s + parts[-1].kept_samples / 8000 == pytest.approx(seconds, abs=1e-3)


def test_a_wav_behind_the_largest_size_keeps_its_length(tmp_path):
    seconds = giant(tmp_path / "a", "WAV", 0xFFFF_FFFF)
    with (tmp_path / "a").open("rb") as file:
        assert length_s(file) == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("missing", [1, 999, 5000, 15_999])
def test_a_flac_that_goes_on_behind_its_promised_length_is_read_to_its_end(seconds, missing, wav):
    samples = sound(16_000, seconds)
    data = bytearray(wav(samples, format="FLAC"))
    if len(samples) <= missing:
        return
    data[21:26] = bytes([data[21] & 0xF0]) + struct.pack(">I", len(samples) - missing)
    assert outcome(bytes(data), 16_000) == len(samples)


@pytest.mark.parametrize("name", ["FLAC", "Ogg Vorbis", "Ogg Opus"])
def test_fewer_samples_than_a_header_promises_are_truncated_also_in_a_stretch(name, monkeypatch):
    """As when a file is cut while libsndfile reads it."""
    import soundfile

    honest, left = soundfile.SoundFile.read, [1]

    def short(self, *arguments, **options):
        block = honest(self, *arguments, **options)
        return block[:-1] if left and left.pop() else block[:0]

    monkeypatch.setattr(soundfile.SoundFile, "read", short)
    with pytest.raises(Reject, match="truncated"):
        list(parts_of(io.BytesIO(whole(name)), CLIP, FORMATS[name].rate_hz, start_s=0.5))


@pytest.mark.parametrize("name", ["CAF", "WMA", "CAF, ALAC", "MOV, PCM", "WavPack", "AVI"])
def test_no_damage_is_called_a_crash(name, tmp_path):
    """A damaged header may send a decoder to a place before the beginning of a real file."""
    rng, data, path = np.random.default_rng(0), whole(name), tmp_path / "a"
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 700), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with path.open("rb") as file:
            try:
                list(parts_of(file, CLIP, 16_000))
            except Reject as reject:
                assert reject.reason  # anything else is no Reject
