"""Tars: each text beside its own sound wherever both stand, and no tar that costs more than itself."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavmill.pipeline.decoding import sandbox_client as fence
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.formats import tar_members as tarwalk
from wavmill.pipeline.formats.tar_feed import TarEnd, sounds_fed
from wavmill.pipeline.formats.tar_members import Walk, unpacked
from wavmill.pipeline.formats.tar_sounds import tar_sounds
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources.webdataset import WebDataset

RATE_HZ = 16_000
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


@pytest.fixture(scope="module")
def sound(tone: Any, wav: Any) -> bytes:
    return wav(tone(0.2), format="FLAC")


def tar_of(*members: tuple[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, data in members:
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))
    return sink.getvalue()


def about(name: str) -> bytes:
    return json.dumps({"text": f"text of {name}", "label": f"label of {name}"}).encode()


def rows_of(folder: Path, tars: dict[str, bytes], **options: Any) -> dict[str, dict[str, Any]]:
    """The rows of some tars by clip, read as a worker does."""
    for name, data in tars.items():
        (folder / name).write_bytes(data)
    source = WebDataset(path=str(folder), carry=("text",), **options)
    objects = pa.concat_tables(Listing(source, Clip()))
    rows = source.read(objects, Clip(), RATE_HZ).drop_columns("audio").to_pylist()
    assert len({row["clip"] for row in rows}) == len(rows)
    return {row["clip"]: row for row in rows}


def texts_and_errors(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[str | None, str]]:
    return {clip: (row["text"], row["error"]) for clip, row in rows.items()}


def unfenced(data: bytes, lo: int = 0, hi: int = -1) -> tuple[list[Any], TarEnd]:
    """What a worker is given of a stretch of a tar, read in this process."""
    file = io.BytesIO(data)
    *found, end = sounds_fed(file, tar_sounds(file, str(hash(data)), lo, hi, "label", ("text",), "utf-8"), "x.tar")
    return found, end


def paired(*names: str) -> dict[str, tuple[str | None, str]]:
    """member: the name of the text that its text came from (or "" for none), or a reason, of a tar of these names."""
    whose = {"json": about, "txt": lambda name: f"text of {name}".encode(), "cls": lambda name: name.encode()}
    members = [
        (name, whose[name.rpartition(".")[2]](name) if name[-4:] in (".txt", "json", ".cls") else b"s")
        for name in names
    ]
    found, end = unfenced(tar_of(*members))
    sounds = {
        one.member: one.reject.reason if one.reject else (one.fields[0] or "").removeprefix("text of ") for one in found
    }
    return sounds | ({f"alone: {end.first_alone}": end.alone} if end.alone else {})


# ---- which text is whose -----------------------------------------------------------------------------------------

PAIRED = {
    "names with dots": (
        ["u11.5.flac", "u11.5.json", "u11.9.flac", "u11.9.json", "u11.10.flac", "u11.10.json"],
        {f"u11.{n}.flac": f"u11.{n}.json" for n in (5, 9, 10)},
    ),
    "times in names": (
        ["s/12.30.01.wav", "s/12.30.01.txt", "s/12.30.02.wav", "s/12.30.02.txt"],
        {"s/12.30.01.wav": "s/12.30.01.txt", "s/12.30.02.wav": "s/12.30.02.txt"},
    ),
    "not adjacent": (
        ["b.json", "a.flac", "c.flac", "c.json", "b.flac", "a.json"],
        {"a.flac": "a.json", "b.flac": "b.json", "c.flac": "c.json"},
    ),
    "the text before": (["a.txt", "a.wav"], {"a.wav": "a.txt"}),
    "one folder written in two ways": (["./d/a.wav", "d/a.txt"], {"./d/a.wav": "d/a.txt"}),
    "the same name in two folders": (["x/a.wav", "y/a.wav", "y/a.txt"], {"x/a.wav": "", "y/a.wav": "y/a.txt"}),
    "a text for both sounds of a sample": (
        ["a.left.wav", "a.right.wav", "a.json"],
        {"a.left.wav": "a.json", "a.right.wav": "a.json"},
    ),
    "each sound has its own, and there is one more": (
        ["a.left.wav", "a.right.wav", "a.left.json", "a.right.json", "a.json"],
        {"a.left.wav": "a.left.json", "a.right.wav": "a.right.json", "alone: a.json": 1},
    ),
    "a text of the sample beside one of its own": (
        ["a.left.wav", "a.right.wav", "a.left.txt", "a.json"],
        {"a.left.wav": "a.left.txt", "a.right.wav": "a.json"},
    ),
    "a suffix of two parts": (["a.flac", "a.lang.txt"], {"a.flac": "a.lang.txt"}),
    "both of two parts": (["a.audio.flac", "a.said.txt"], {"a.audio.flac": "a.said.txt"}),
    "the text of a sound that is gone": (
        ["u.1.flac", "u.1.json", "u.2.json"],
        {"u.1.flac": "u.1.json", "alone: u.2.json": 1},
    ),
    "the text of a take that is gone": (["u.flac", "u.2.json"], {"u.flac": "", "alone: u.2.json": 1}),
    "the text of a sound beside others of its key": (
        ["u.flac", "u.a.flac", "u.a.json", "u.b.json"],
        {"u.flac": "", "u.a.flac": "u.a.json", "alone: u.b.json": 1},
    ),
    "a shorter name that is another's": (["u1.wav", "u1.txt", "u1.5.wav"], {"u1.wav": "u1.txt", "u1.5.wav": ""}),
    "a longer name that begins alike": (["u1.wav", "u10.txt"], {"u1.wav": "", "alone: u10.txt": 1}),
    "two texts that disagree": (["a.wav", "a.en.txt", "a.de.txt"], {"a.wav": "ambiguous_text"}),
    "a json before a txt": (["a.wav", "a.txt", "a.json"], {"a.wav": "a.json"}),
    "hidden ones": (["a.wav", "._a.wav", "._a.json", "a.json", ".d/b.wav", "__MACOSX/a.wav"], {"a.wav": "a.json"}),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRED)
def test_a_text_goes_to_the_sound_whose_it_is_and_to_no_other(case):
    names, expected = PAIRED[case]
    assert paired(*names) == expected
    assert paired(*reversed(names)) == expected


def test_two_texts_of_one_name_that_disagree_reject_their_sound():
    found, _ = unfenced(tar_of(("a.wav", b"s"), ("a.txt", b"one"), ("b.wav", b"s"), ("a.txt", b"two")))
    assert [one.reject and one.reject.reason for one in found] == ["ambiguous_text", None]
    found, _ = unfenced(tar_of(("a.wav", b"s"), ("a.txt", b"one"), ("a.txt", b"one")))
    assert [one.fields for one in found] == [["one"]]


WORDS = st.sampled_from(["a", "b", "u1", "x-y", "中"])
ENDS = st.sampled_from(["", ".0", ".5", ".10", ".2024", ".take", ".v1.2"])
FOLDERS = st.sampled_from(["", "s/", "s.1/", "s/deep/", "./"])


@settings(deadline=None, max_examples=25)
@given(
    stems=st.lists(
        st.tuples(FOLDERS, WORDS, ENDS).map("".join), min_size=1, max_size=8, unique_by=lambda s: s.removeprefix("./")
    ),
    data=st.data(),
)
def test_random_tars_in_random_stretches_give_each_sound_once_with_its_own_text(stems, data):
    """The model: a sound has the text that was written for it; the order and the cuts are anything."""
    seed = data.draw(st.integers(0, 10**6))
    rng = random.Random(seed)
    silent = set(rng.sample(stems, len(stems) // 3))
    suffix = {stem: rng.choice(["flac", "wav", "MP3"]) for stem in stems}
    members = [(f"{stem}.{suffix[stem]}", b"s" * rng.choice([0, 1, 511, 512, 700])) for stem in stems]
    texts = {stem: f"text of {stem}" for stem in stems if stem not in silent}
    members += [(f"{stem}.json", about(stem)) for stem in texts]
    hidden = [(f"{'/'.join([*stem.split('/')[:-1], '._' + stem.split('/')[-1]])}.wav", b"x") for stem in stems[:2]]
    again = [one for one in members if rng.random() < 0.2]
    members += [*hidden, *again, ("readme.md", b"x"), ("other/one.txt", b"of nobody")]
    rng.shuffle(members)
    tar = tar_of(*members, format=rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    los = [0, *sorted({rng.randrange(1, len(tar)) for _ in range(rng.randrange(5))})]
    found, ends = [], []
    for lo, hi in zip(los, [*los[1:], -1], strict=True):
        some, end = unfenced(tar, lo, hi)
        found += some
        ends.append(end)
    assert [one.member for one in found] == [
        name for name, _ in members if name.rpartition(".")[2] in suffix.values() and "._" not in name
    ]
    first = {one.member: one for one in found if not one.earlier}
    assert set(first) == {f"{stem}.{suffix[stem]}" for stem in stems}
    got = {stem: first[f"{stem}.{suffix[stem]}"] for stem in stems}
    assert {stem: one.fields for stem, one in got.items()} == {stem: [texts.get(stem)] for stem in stems}
    assert all(one.reject is None and one.file.read() == dict(members)[one.member] for one in got.values())
    assert all(one.reject.reason == "duplicate" for one in found if one.earlier)
    assert (sum(end.hidden for end in ends), sum(end.alone for end in ends)) == (len(hidden), 1)
    assert all(end.damage is None for end in ends)


def test_what_belongs_to_no_sound_is_a_row_with_its_count_and_so_are_hidden_members(tmp_path, sound):
    rows = rows_of(tmp_path, {"x.tar": tar_of(("a.wav", sound), ("b.txt", b"b"), ("c.txt", b"c"), ("._a.wav", b"x"))})
    assert texts_and_errors(rows) == {
        "x.tar#a.wav": (None, ""), "x.tar#b.txt": (None, "no_sound"), "x.tar#._a.wav": (None, "hidden"),
    }  # fmt: skip
    assert "1 more" in rows["x.tar#b.txt"]["message"]


def test_two_processes_read_and_decode_any_number_of_tars(tmp_path, sound, monkeypatch):
    started = []
    child = fence.Child
    monkeypatch.setattr(fence, "_idle", [])
    monkeypatch.setattr(fence, "Child", lambda: started.append(child()) or started[-1])
    rows = rows_of(tmp_path, {f"{n}.tar": tar_of(("a.wav", sound), ("b.wav", sound)) for n in range(4)})
    assert len(rows) == 8 and len(started) == len(fence._idle) <= 2
    for one in started:
        one.end()


def test_the_second_of_a_name_is_rejected_in_another_stretch_too(tmp_path, sound):
    tar = tar_of(("a.wav", sound), ("b.wav", sound), ("a.wav", sound))
    (tmp_path / "x.tar").write_bytes(tar)
    source = WebDataset(path=str(tmp_path))
    [row] = pa.concat_tables(Listing(source, Clip())).to_pylist()
    cut = len(sound) + BLOCK
    objects = [pa.Table.from_pylist([{**row, "lo": lo, "hi": hi}]) for lo, hi in ((0, cut), (cut, -1))]
    clips = [clip for some in objects for clip in source.read(some, Clip(), RATE_HZ).to_pylist()]
    assert {clip["clip"]: clip["error"] for clip in clips} == {
        "x.tar#a.wav": "", "x.tar#b.wav": "", "x.tar#a.wav#~2": "duplicate",
    }  # fmt: skip


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("spoilt", [0, 1])
def test_a_packed_tar_that_is_not_held_is_read_as_one_that_is(monkeypatch, pack, spoilt):
    members = [(f"{n:02}.wav", random.Random(n).randbytes(9000)) for n in range(30)]
    members += [(f"{n:02}.json", about(str(n))) for n in range(30)]
    packed = pack(tar_of(*members))
    packed = packed[: len(packed) - spoilt * len(packed) // 3]

    def facts():
        found, end = unfenced(packed, 20_000, 200_000 if not spoilt else -1)
        sounds = [(one.member, one.fields, str(one.reject), one.file and one.file.read()) for one in found]
        return sounds, end._replace(damage=end.damage and end.damage.reason)

    held = facts()
    monkeypatch.setattr(tarwalk, "UNPACKED_BYTES", 1000)
    from wavmill.pipeline.formats import tar_sounds as tarsounds

    monkeypatch.setattr(tarsounds, "_kept", {})
    if spoilt:
        assert held[1].damage == facts()[1].damage == "corrupt"
    else:
        assert facts() == held and len(held[0]) == 18
        assert facts() == held  # from the index of before


# ---- texts -------------------------------------------------------------------------------------------------------

TEXT = "naïve 中文 🎵"
ENCODED = [
    *((name, mark + TEXT.encode(name)) for name, mark in (
        ("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\0\0"), ("utf-32-be", b"\0\0\xfe\xff"),
    )),
]  # fmt: skip


@pytest.mark.parametrize("suffix", ["txt", "cls", "json"])
@pytest.mark.parametrize(("name", "data"), ENCODED)
def test_a_byte_order_mark_tells_the_encoding_and_is_no_part_of_the_text(tmp_path, sound, suffix, name, data):
    if suffix == "json":
        mark = data[: len(data) - len(TEXT.encode(name))]
        data = mark + json.dumps({"text": TEXT, "label": TEXT}, ensure_ascii=False).encode(name)
    [row] = rows_of(tmp_path, {"x.tar": tar_of(("a.wav", sound), (f"a.{suffix}", data))}).values()
    assert row["error"] == "" and row["label" if suffix == "cls" else "text"] == TEXT


@pytest.mark.parametrize("suffix", ["txt", "cls", "json"])
@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "big5"])
def test_bytes_that_are_not_utf_8_reject_until_the_job_says_their_encoding(tmp_path, sound, suffix, encoding):
    data = "中文".encode(encoding) if suffix != "json" else '{"text": "中文", "label": "中文"}'.encode(encoding)
    tars = {"x.tar": tar_of(("a.wav", sound), (f"a.{suffix}", data), ("b.wav", sound))}
    rows = rows_of(tmp_path, tars)
    assert [row["error"] for row in rows.values()] == ["bad_text", ""]
    assert f"a.{suffix}" in rows["x.tar#a.wav"]["message"] and "encoding:" in rows["x.tar#a.wav"]["message"]
    row = rows_of(tmp_path, tars, encoding=encoding)["x.tar#a.wav"]
    assert row["error"] == "" and row["label" if suffix == "cls" else "text"] == "中文"


def test_utf_16_without_a_mark_is_no_text_with_nul_characters(tmp_path, sound):
    tars = {"x.tar": tar_of(("a.wav", sound), ("a.txt", "hello".encode("utf-16-le")))}
    assert rows_of(tmp_path, tars)["x.tar#a.wav"]["error"] == "bad_text"
    assert rows_of(tmp_path, tars, encoding="utf-16-le")["x.tar#a.wav"]["text"] == "hello"


def test_a_txt_that_nobody_asked_for_is_not_read(tmp_path, sound):
    (tmp_path / "x.tar").write_bytes(tar_of(("a.wav", sound), ("a.txt", b"\xff\xff\xff")))
    source = WebDataset(path=str(tmp_path))
    rows = source.read(pa.concat_tables(Listing(source, Clip())), Clip(), RATE_HZ)
    assert rows["error"].to_pylist() == [""]


@pytest.mark.parametrize("written", ["12345678901234567890", "9" * 400, "1.10", "1e400", "0.12345678901234567891"])
def test_numbers_of_a_json_keep_the_digits_that_were_written(tmp_path, sound, written):
    tars = {"x.tar": tar_of(("a.wav", sound), ("a.json", f'{{"label": {written}, "text": {written}}}'.encode()))}
    [row] = rows_of(tmp_path, tars).values()
    assert (row["label"], row["text"]) == (written, written)


def test_an_encoding_that_python_does_not_know_is_refused():
    for wrong in ("utf-9", "base64", ""):
        with pytest.raises(ValueError, match="is no encoding"):
            WebDataset(path="x", encoding=wrong)
    assert WebDataset(path="x", encoding="GBK").recipe() == WebDataset(path="x", encoding="gbk").recipe()
    assert (
        "encoding" not in WebDataset(path="x").recipe()
        and WebDataset(path="x", encoding="gbk").recipe()["encoding"] == "gbk"
    )


# ---- tars that want more than they are ---------------------------------------------------------------------------


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    facts = tarfile.TarInfo(name.decode())
    facts.size, facts.type = size, kind
    return facts.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def number(value: int) -> bytes:
    """A number of a header, in octal digits or, above them, in base 256."""
    return b"%011o\0" % value if value < 8**11 else b"\x80" + value.to_bytes(11, "big")


def old_sparse(name: bytes, real: int, data: bytes = b"x" * BLOCK) -> bytes:
    """A sparse file as GNU tar writes it: ``data`` at its start, then a hole."""
    block = bytearray(header(name, len(data), b"S"))
    block[345:BLOCK] = bytes(BLOCK - 345)
    for at, value in ((386, 0), (398, len(data)), (410, real), (422, 0)):
        block[at : at + 12] = number(value)
    block[483:495] = number(real)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(data)


def pax_sparse(name: bytes, real: int) -> bytes:
    """A sparse file in pax format 1.0: one block of map, no data."""
    records = b"".join(pax(key, value) for key, value in (
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % real),
    ))  # fmt: skip
    data = padded(b"1\n%d\n0\n" % real)
    return header(b"x", len(records), b"x") + padded(records) + header(b"GNUSparseFile.0/x", len(data)) + data


def pax(key: bytes, value: bytes) -> bytes:
    length = next(n for n in range(len(key) + len(value) + 3, 10**9) if len(b"%d %s=%s\n" % (n, key, value)) == n)
    return b"%d %s=%s\n" % (length, key, value)


def zeros(mib: int) -> bytes:
    """bzip2 of so many MiB of zeros: streams may be joined."""
    return bz2.compress(bytes(1 << 20)) * mib


@pytest.fixture(scope="module")
def bombs(sound: bytes) -> dict[str, tuple[bytes, dict[str, str]]]:
    """name: the tar, and the clips that come of it. a.wav stands before, z.wav behind what is wrong."""
    a, z = (header(name, len(sound)) + padded(sound) for name in (b"a.wav", b"z.wav"))
    around = {"a.wav": "", "z.wav": ""}
    gz = lambda *parts: gzip.compress(b"".join(parts) + END, 1)  # noqa: E731
    many = b"".join(header(b"s.%d.npy" % n, 1 << 20) + bytes(1 << 20) for n in range(150))
    return {
        "sparse.tar": (
            a + b"".join(old_sparse(b"%d.wav" % n, 1 << 30) for n in range(40)) + z + END,
            around | {f"{n}.wav": "too_large" for n in range(40)},
        ),
        "huge sparse.tar": (a + old_sparse(b"s.wav", 1 << 60) + z + END, around | {"s.wav": "too_large"}),
        "pax sparse.tar": (
            a + b"".join(pax_sparse(b"%d.wav" % n, 900 << 20) for n in range(40)) + z + END,
            around | {f"{n}.wav": "too_large" for n in range(40)},
        ),
        "pax chain.tar": (
            a + (header(b"x", 20, b"x") + padded(pax(b"comment", b"12345678"))) * 600 + z + END,
            {"a.wav": "", "z.wav": "too_large"},
        ),
        "long names.tar": (
            a + (header(b"x", 10, b"L") + padded(b"other.wav\0")) * 600 + z + END,
            {"a.wav": "", "other.wav": "too_large"},
        ),
        "pax of many bytes.tar.gz": (
            gz(a, header(b"x", 96 << 20, b"x"), pax(b"comment", b"x" * 100), bytes((96 << 20) - 113), z),
            {"a.wav": "", "z.wav": "too_large"},
        ),
        "name of many bytes.tar.gz": (
            gz(a, header(b"x", 1 << 20, b"L"), b"n" * (1 << 20), header(b"cut off here", len(sound)), padded(sound), z),
            {"a.wav": "", "cut off here": "too_large", "z.wav": ""},
        ),
        "one sample.tar.gz": (gz(a, header(b"s.wav", len(sound)) + padded(sound), many, z), around | {"s.wav": ""}),
        "a text of many bytes.tar.gz": (
            gz(header(b"a.txt", 96 << 20), bytes(96 << 20), a, z), {"a.wav": "too_large", "z.wav": ""},
        ),
        "promise.tar": (a + header(b"b.wav", 1 << 40) + padded(sound) + END, {"a.wav": "", "": "corrupt"}),
        "bomb.tar.bz2": (
            bz2.compress(a + header(b"b.wav", 1200 << 20)) + zeros(1200) + bz2.compress(z + END),
            {"a.wav": "", "": "too_large"},
        ),
    }  # fmt: skip


def test_a_tar_that_wants_more_than_it_is_costs_what_is_wrong_with_it_and_no_memory_of_the_worker(
    tmp_path, sound, bombs
):
    tars = {name: data for name, (data, _) in bombs.items()}
    assert max(map(len, tars.values())) < 1 << 20
    rows_of(tmp_path, {"0.tar": tar_of(("a.wav", sound))})  # what is imported and started is no tar's
    tracemalloc.start()
    rows = rows_of(tmp_path, tars | {"z.tar": tar_of(("a.wav", sound), ("a.txt", b"t"))})
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    got = {name: {} for name in tars}
    for clip, row in rows.items():
        if row["source"] in got:
            got[row["source"]][clip.removeprefix(row["source"]).removeprefix("#")] = row["error"]
    assert got == {name: expected for name, (_, expected) in bombs.items()}
    assert texts_and_errors(rows)["z.tar#a.wav"] == ("t", "")
    assert most_bytes < 64 << 20


@pytest.mark.parametrize(
    "name", ["sparse.tar", "pax chain.tar", "pax of many bytes.tar.gz", "one sample.tar.gz", "bomb.tar.bz2"]
)
def test_a_plan_measures_a_first_tar_that_wants_more_than_it_is(tmp_path, bombs, name):
    (tmp_path / name).write_bytes(bombs[name][0])
    source = WebDataset(path=str(tmp_path))
    objects = pa.concat_tables(Listing(source, Clip()))
    tracemalloc.start()
    [seconds] = source.seconds(objects)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds > 0 and most_bytes < 16 << 20


def test_a_sparse_sound_within_bounds_is_whole(tmp_path, tone, wav):
    silence = wav(tone(0.5))[:BLOCK] + bytes(8 * BLOCK)
    whole = padded(silence)
    head = bytearray(whole[:BLOCK])
    tar = old_sparse(b"a.wav", len(whole), bytes(head)) + END
    found, end = unfenced(tar)
    assert [(one.member, one.file.read() == bytes(head) + bytes(len(whole) - BLOCK)) for one in found] == [
        ("a.wav", True)
    ]
    assert end.damage is None


@pytest.mark.parametrize("seed", range(3))
def test_headers_with_flipped_bits_end_a_walk_and_nothing_else(sound, seed):
    """Whatever a header says, members stay within the tar and the walk comes to an end."""
    rng = random.Random(seed)
    tar = tar_of(
        ("a.wav", b"1" * 700), ("d" * 120 + "/b.wav", b"2"), ("ü" * 80 + ".json", b"{}"), format=tarfile.PAX_FORMAT
    )
    tar = tar[: -len(END)] + old_sparse(b"s.wav", 4096) + pax_sparse(b"p.wav", 4096) + END
    for _ in range(100):
        spoilt = bytearray(tar)
        for _ in range(rng.randrange(1, 4)):
            spoilt[rng.randrange(len(tar))] ^= 1 << rng.randrange(8)
        walk = Walk(unpacked(io.BytesIO(bytes(spoilt))))
        members = list(walk)
        assert all(one.cut or one.at + one.stored <= len(tar) for one in members) and len(members) < 20
        found, _ = unfenced(bytes(spoilt))
        assert all(one.reject or one.file is not None for one in found)
