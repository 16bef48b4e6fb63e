"""A folder of everything that should not be in a corpus: each file ends as done or with the reason that fits it."""

import gzip
import io
import json
import os
import struct
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inline import run_inline, words

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.decoding.sandbox_readers import READERS
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.store.names import encode_name

RATE_HZ = 16_000
CASES = 100_000 if os.environ.get("WAVMILL_CHAOS") else 300
DONE = "done"
REASONS = {
    "bad_rate", "corrupt", "empty", "expands", "header_lies", "joined", "no_channel", "no_decoder", "non_finite",
    "not_audio", "too_large", "too_long", "too_many_channels", "too_short", "truncated",
}  # fmt: skip


@pytest.fixture(scope="module")
def coded(tone: Any, wav: Any) -> dict[str, bytes]:
    """A second of sound, in every way that is used below."""
    sound = tone(1.0)
    made = {format: wav(sound, format=format) for format in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "W64", "AU", "CAF")}
    return {**made, "OPUS": wav(sound, format="OGG", subtype="OPUS"), "FLOAT": wav(sound, subtype="FLOAT")}


def edited(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flac_saying(data: bytes, samples: int) -> bytes:
    """A FLAC whose header promises so many samples: 36 bits, from the middle of byte 21 on."""
    return edited(data, 21, bytes([data[21] & 0xF0 | samples >> 32]) + struct.pack(">I", samples & 0xFFFF_FFFF))


def sounds(coded: dict[str, bytes], tone: Any, wav: Any) -> dict[str, tuple[bytes, str]]:
    """File name -> its bytes, and what has to become of it."""
    flac, plain, ogg, mp3, float32 = (coded[name] for name in ("FLAC", "WAV", "OGG", "MP3", "FLOAT"))
    many = np.tile(tone(0.5)[:, None], (1, 32))
    return {
        "zero.wav": (b"", "empty"),
        "random.flac": (np.random.default_rng(0).bytes(5000), "not_audio"),
        "a page of errors.mp3": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 40, "not_audio"),
        "a script.wav": (b"#!/bin/sh\nrm -rf ~\n", "not_audio"),
        "a picture.wav": (b"\x89PNG\r\n\x1a\n" + bytes(3000), "not_audio"),
        "a flac.mp3": (flac, DONE),
        "an mp3.wav": (mp3, DONE),
        "an ogg without.suffix": (ogg, DONE),
        "half.wav": (plain[: len(plain) // 2], "truncated"),
        "half float.wav": (float32[: len(float32) // 2], "truncated"),
        "half.mp3": (mp3[: len(mp3) // 2], "truncated"),
        "cut.ogg": (ogg[:-200], "truncated"),
        "half.flac": (flac[: len(flac) // 2], "corrupt"),
        "header only.wav": (plain[:44], "truncated"),
        "half a header.wav": (plain[:30], "truncated"),
        "a hole.flac": (edited(flac, len(flac) // 2, bytes(2000)), "corrupt"),
        "two flacs.flac": (flac + flac, DONE),
        "two oggs.ogg": (ogg + coded["OPUS"], "corrupt"),
        "the same ogg twice.ogg": (ogg + ogg, DONE),
        "two mp3s.mp3": (mp3 + mp3, DONE),
        "two wavs.wav": (plain + plain, "joined"),
        "two aiffs.aiff": (coded["AIFF"] + coded["AIFF"], "joined"),
        "says 4 GiB.wav": (edited(plain, 40, b"\xff\xff\xff\xff"), DONE),
        "says 49 days.flac": (flac_saying(flac, 2**36 - 1), "header_lies"),
        "says twice.flac": (flac_saying(flac, 32_000), "corrupt"),
        "one Hz.wav": (edited(plain, 24, struct.pack("<I", 1)), "bad_rate"),
        "2 GHz.wav": (edited(plain, 24, struct.pack("<I", 2**31 - 1)), "bad_rate"),
        "zero Hz.wav": (edited(plain, 24, bytes(4)), "not_audio"),
        "no channels.wav": (edited(plain, 22, bytes(2)), "corrupt"),
        "65535 channels.wav": (edited(plain, 22, b"\xff\xff"), "corrupt"),
        "32 channels.wav": (wav(many), DONE),
        "100 channels.wav": (wav(np.tile(tone(0.3)[:, None], (1, 100))), "too_many_channels"),
        "8 channels of unknown length.flac": (flac_saying(wav(many[:, :8], format="FLAC"), 0), DONE),
        "192 kHz.wav": (wav(tone(0.5, rate_hz=192_000), 192_000), DONE),
        "1 kHz.wav": (wav(tone(0.5, rate_hz=1_000), 1_000), DONE),
        "nan.wav": (edited(float32, len(float32) - 400, struct.pack("<f", float("nan"))), "non_finite"),
        "infinity.wav": (edited(float32, len(float32) - 400, struct.pack("<f", float("inf"))), "non_finite"),
        "no samples.wav": (wav(tone(0.0)), "too_short"),
        "one sample.wav": (wav(tone(1.0)[:1]), "too_short"),
        "shorter than a frame.wav": (wav(tone(0.01)), "too_short"),
        "silence.flac": (wav(np.zeros(RATE_HZ, np.float32), format="FLAC"), DONE),
        "minutes of nothing.flac": (wav(np.zeros(300 * 8_000, np.float32), 8_000, format="FLAC"), DONE),
        "words behind.wav": (plain + b"LIST" + bytes(500), DONE),
    }


# names that a careless program trips over; all hold the same good sound
NAMES = [
    b"caf\xe9.flac", b"two\nlines.flac", b"tab\there.flac", b"x..flac", b"-rf.flac", b"$(reboot).flac",
    "\u202egnp.flac".encode(), unicodedata.normalize("NFC", "é.flac").encode(),
    unicodedata.normalize("NFD", "é.flac").encode(), b"%2e%2e%2f.flac", b"back\\slash.flac", b"C:.flac",
    b"l" * 250 + b".flac", "😀.flac".encode(), b"quote\"'.flac", b"#hash?query=1.flac", b" .flac",
]  # fmt: skip


def outcomes(store: Path, dataset: dict[str, Any]) -> dict[str, list[str]]:
    """Source -> what became of its clips, read from what was published and from nothing else."""
    import pyarrow.parquet as pq

    top, found = store / "words" / f"v{dataset.version}", dict[str, list[str]]()
    for part in dataset.parts:
        for source in pq.read_table(top / part.path, columns=["source"])["source"].to_pylist():
            found.setdefault(source, []).append(DONE)
    rejects = pq.read_table(top / "rejects.parquet").to_pylist()
    for row in rejects:
        assert row["message"], row
        found.setdefault(row["source"], []).append(row["reason"])
    assert sum(map(len, found.values())) == dataset.counts.clips
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_everything_in_the_zoo_has_the_outcome_that_fits_it(tmp_path, coded, tone, wav):
    corpus, expected = tmp_path / "corpus", {}
    corpus.mkdir()
    for name, (data, outcome) in sounds(coded, tone, wav).items():
        (corpus / name).write_bytes(data)
        expected[name] = outcome
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(corpus) + b"/" + name)).write_bytes(coded["FLAC"])
    (corpus / "loop").symlink_to(corpus)
    (corpus / "nowhere.wav").symlink_to(corpus / "not there")
    os.mkfifo(corpus / "pipe.wav")
    (corpus / "a folder.wav").mkdir()

    job = words(corpus, tmp_path / "store", "source.suffixes=[any]", "clip.max_s=600")
    found = outcomes(tmp_path / "store", run_inline(job))
    odd = {name for name in found if encode_name(name) in NAMES}
    assert len(odd) == len(NAMES) and all(found[name] == [DONE] for name in odd)
    rest = {name: set(kinds) for name, kinds in found.items() if name not in odd}
    assert rest.pop("nowhere.wav") == {"missing"}
    assert rest == {name: {outcome} for name, outcome in expected.items()}


def test_a_sound_that_comes_out_ten_thousand_times_its_size_is_cut_off(wav, monkeypatch):
    from wavmill.pipeline.decoding import decode, decoders

    monkeypatch.setattr(decoders, "EXPANDED_BYTES", 1 << 20)
    monkeypatch.setattr(decoders, "EXPANSION", 100)
    bomb = wav(np.zeros((10 * 192_000, 8), np.float32), 192_000, format="FLAC")
    said = edited(bomb, 21, bytes([bomb[21] & 0xF0]) + bytes(4))  # it does not say how long it is
    with pytest.raises(Reject, match="expands"):
        list(decode.parts_of(io.BytesIO(said), Clip(), RATE_HZ))
    with pytest.raises(Reject, match="header_lies"):
        list(decode.parts_of(io.BytesIO(bomb), Clip(), RATE_HZ))


@pytest.mark.parametrize(("limit", "lo", "hi"), [("WHOLE_S", 0, -1), ("LONGEST_S", 2, 8)])
def test_a_sound_longer_than_a_worker_can_hold_ends_there_and_says_so(wav, tone, monkeypatch, limit, lo, hi):
    from wavmill.pipeline.decoding import decode

    monkeypatch.setattr(decode, limit, 4)
    parts, data = [], wav(tone(9.0))
    with pytest.raises(Reject, match="too_long"):
        parts += decode.parts_of(io.BytesIO(data), Clip(max_s=1), RATE_HZ, lo=lo, hi=hi)


# ---- tars ---------------------------------------------------------------------------------------------------------


def tar_of(*members: tuple[str, bytes, dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data, facts in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for fact, value in facts.items():
                setattr(info, fact, value)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return sink.getvalue()


def read_tar(folder: Path, name: str, data: bytes) -> dict[str, str]:
    (folder / name).write_bytes(data)
    source = WebDataset(path=str(folder))
    [objects] = Listing(source, Clip())
    return {row["clip"]: row["error"] for row in source.read(objects, Clip(), RATE_HZ).to_pylist()}


def test_members_that_lead_out_and_links_and_devices_do_no_harm(tmp_path, coded):
    flac = coded["FLAC"]
    link, device = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, {"type": tarfile.CHRTYPE}
    tar = tar_of(
        ("../../out.flac", flac, {}), ("/etc/in.flac", flac, {}), ("l.flac", b"", link), ("d.wav", b"", device)
    )
    assert read_tar(tmp_path, "a.tar", tar) == {"a.tar#../../out.flac": "", "a.tar#/etc/in.flac": ""}
    assert [*tmp_path.iterdir()] == [tmp_path / "a.tar"] and not (tmp_path.parent / "out.flac").exists()


def test_a_member_that_is_too_large_to_be_held_costs_itself_only(tmp_path, coded, monkeypatch):
    monkeypatch.setattr("wavmill.pipeline.formats.tar_sounds.MEMBER_BYTES", 1 << 16)
    in_this_process = lambda file, reader, options: READERS[reader](file, **options)  # noqa: E731
    monkeypatch.setattr("wavmill.pipeline.sources.webdataset.read_behind", in_this_process)
    flac = coded["FLAC"]
    bomb = gzip.compress(tar_of(("a.flac", flac, {}), ("b.wav", bytes(1 << 20), {}), ("c.flac", flac, {})))
    found = read_tar(tmp_path, "z.tar.gz", bomb)
    assert found == {"z.tar.gz#a.flac": "", "z.tar.gz#b.wav": "too_large", "z.tar.gz#c.flac": ""}


def test_a_member_whose_header_promises_a_terabyte_is_not_allocated(tmp_path, coded):
    tar = bytearray(tar_of(("a.flac", coded["FLAC"], {}), ("b.wav", b"x" * 600, {})))
    at = tar.index(b"b.wav")
    tar[at + 124 : at + 136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    tar[at + 148 : at + 156] = b" " * 8
    tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
    found = read_tar(tmp_path, "t.tar", bytes(tar))
    assert found.pop("t.tar#a.flac") == ""
    assert set(found.values()) <= {"too_large", "corrupt"} and found


# ---- headers ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "W64", "AU", "CAF", "OPUS", "FLOAT"]),
    edits=st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=8)), max_size=4),
    cut=st.none() | st.floats(0, 1),
    moved=st.none() | st.tuples(st.integers(0, 300), st.integers(-40, 40)),
)
def test_a_header_of_any_bytes_gives_finite_clips_or_one_of_the_reasons(coded, name, edits, cut, moved):
    data = bytearray(coded[name])
    for at, new in edits:
        data[at : at + len(new)] = new
    if moved is not None:
        at, by = moved
        data = data[:at] + bytes(max(0, by)) + data[at + max(0, -by) :]
    data = data[: len(data) if cut is None else int(cut * len(data))]
    seconds = 0.0
    try:
        for part in fence.parts_of(io.BytesIO(bytes(data)), Clip(max_s=5), RATE_HZ):
            assert part.reject is not None or np.isfinite(part.audio).all()
            assert part.kept_samples > 0
            seconds += part.kept_samples / RATE_HZ
    except Reject as reject:
        assert reject.reason in REASONS and reject.message
    assert seconds <= 10_000 * len(data)


# ---- manifests ----------------------------------------------------------------------------------------------------

odd = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 4), st.just(1e300), st.text(max_size=5))
paths = st.sampled_from(["a.flac", "./a.flac", "sub/../a.flac", "b.wav", "../out.wav", "/etc/passwd", "sub", ".", "\n"])
row = st.fixed_dictionaries(
    {"path": st.one_of(paths, paths, odd)},
    optional={
        "start_s": odd,
        "end_s": odd,
        "label": odd,
        "clip": odd,
        "who": st.one_of(odd, st.lists(odd, max_size=2)),
    },
)


@settings(deadline=None, max_examples=min(CASES, 3000) // 3, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(row, max_size=6), ends=st.sampled_from(["", "\n", "\n{", "\x00"]))
def test_a_manifest_of_anything_is_refused_or_every_row_of_it_has_an_outcome(tmp_path_factory, coded, rows, ends):
    folder = tmp_path_factory.getbasetemp() / "manifests"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "a.flac").write_bytes(coded["FLAC"])
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + ends)
    source = Manifest(path=str(folder / "m.jsonl"), carry=("who",) if all("who" in row for row in rows) else ())
    try:
        [objects] = Listing(source, Clip())
    except JobError as error:
        assert str(folder) in str(error)
        return
    found = source.read(objects, Clip(), RATE_HZ).to_pylist()
    assert len(found) >= len(rows) and all((row["error"] == "") == (row["seconds"] > 0) for row in found)
