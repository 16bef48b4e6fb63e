"""Ids of clips: no two clips of a job share one, and an id leads back to its sound and its stretch."""

import io
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inline import without_fence

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.exports.images import Pictures
from wavmill.pipeline.formats.clip_ids import (
    escaped,
    member_id,
    part_id,
    part_of,
    place_id,
    second_id,
    stretch_id,
    without_suffixes,
)
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.store import objects as objects_module

RATE_HZ = 8_000
CUT = Clip(min_s=0.1, max_s=1)
SHORT_S, LONG_S = 0.25, 2.5  # one clip, three clips

names = st.text("a#~1-.", min_size=1, max_size=5).map(lambda text: f"{text}.wav")
odd_names = st.text("a#~1-.", min_size=1, max_size=6)
times = st.floats(0, 1e18) | st.integers(0, 10**6).map(lambda ms: ms / 1000)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "parts_of_each", without_fence)


@pytest.fixture(scope="module")
def sounds(wav: Any) -> dict[float, bytes]:
    """A sound of one clip, and one of three."""
    return {seconds: wav(np.full(round(seconds * RATE_HZ), 0.1, np.float32), RATE_HZ) for seconds in (SHORT_S, LONG_S)}


def pieces_of(clip: str) -> list[str]:
    """What an id was put together from: an odd run of # ends a piece with its last one."""
    cut = re.sub(r"#+", lambda run: "#" * (len(run[0]) // 2) + "\0" * (len(run[0]) % 2), clip)
    return cut.split("\0")


def as_floats(piece: str) -> tuple[float, float | None]:
    start, end = piece.split("-")
    return float(f"{start}e-3"), float(f"{end}e-3") if end else None


def milled(source: Any) -> list[dict[str, Any]]:
    return source.read(pa.concat_tables(Listing(source, CUT)), CUT, RATE_HZ).drop_columns("audio").to_pylist()


def check_all_apart(rows: list[dict[str, Any]]) -> None:
    assert [clip for clip, count in Counter(row["clip"] for row in rows).items() if count > 1] == []


quick = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@quick
@given(some=st.dictionaries(names, st.sampled_from([SHORT_S, LONG_S]), min_size=1, max_size=6))
def test_every_part_of_every_file_has_an_id_that_leads_back_to_it(tmp_path_factory, sounds, some):
    folder = tmp_path_factory.mktemp("files")
    for name, seconds in some.items():
        (folder / f"x{name}").write_bytes(sounds[seconds])
    rows = milled(Files(path=str(folder)))
    check_all_apart(rows)
    assert len(rows) == sum(1 if seconds == SHORT_S else 3 for seconds in some.values())
    for row in rows:
        path, *part = pieces_of(row["clip"])
        assert path == row["source"]
        assert part == ([str(round(row["start_s"] * 1000))] if some[path[1:]] == LONG_S else [])


@quick
@given(members=st.lists(st.tuples(names, st.sampled_from([SHORT_S, LONG_S])), min_size=1, max_size=6))
def test_every_sound_of_a_tar_has_an_id_of_its_own_even_where_members_share_a_name(tmp_path_factory, sounds, members):
    folder = tmp_path_factory.mktemp("tars")
    members = [(name if name[0] != "." else f"h{name}", seconds) for name, seconds in members]
    with tarfile.open(folder / "t#1.tar", "w") as tar:
        for name, seconds in members:
            facts = tarfile.TarInfo(name)
            facts.size = len(sounds[seconds])
            tar.addfile(facts, io.BytesIO(sounds[seconds]))
    rows = milled(WebDataset(path=str(folder)))
    check_all_apart(rows)
    for row in rows:
        path, member, *_ = pieces_of(row["clip"])
        assert path == row["source"] == "t#1.tar"
        assert (member[1:] if member.startswith("~") else member) in dict(members)


stretches = st.tuples(
    st.sampled_from(["p.wav", "p.wav#0", "p#.wav", "#.wav", "p.wav#1000-2000"]),
    st.none() | st.sampled_from([0.0, 0.25, 1.0, 1.0001, 2.0, 1 / 3, 0.1 + 0.2, 0.3]),
    st.none() | st.sampled_from([2.25, 2.4, 2.4000001, 2.5]),
)


@quick
@given(rows=st.sets(stretches.map(lambda row: (row[0], row[1] or 0.0, row[2])), min_size=1, max_size=12))
def test_whole_files_their_parts_and_their_stretches_never_share_an_id(tmp_path_factory, sounds, rows):
    folder = tmp_path_factory.mktemp("stretches")
    for path in {path for path, _, _ in rows}:
        (folder / path).write_bytes(sounds[LONG_S])
    lines = [
        f"{path},{start_s!r},{'' if end_s is None else repr(end_s)}" for path, start_s, end_s in sorted(rows, key=str)
    ]
    (folder / "m.csv").write_text("\n".join(["path,start_s,end_s", *lines]))
    found = milled(Manifest(path=str(folder / "m.csv")))
    check_all_apart(found)
    back = set()
    for row in found:
        path, *rest = pieces_of(row["clip"])
        assert path == row["source"]
        back.add((path, *as_floats(rest[0] if rest and "-" in rest[0] else "0-")))
    assert back == rows


@settings(deadline=None, max_examples=300)
@given(one=st.tuples(odd_names, times, st.none() | times), other=st.tuples(odd_names, times, st.none() | times))
def test_two_stretches_share_an_id_only_when_they_are_the_same(one, other):
    assert (stretch_id(*one) == stretch_id(*other)) == (one == other)
    path, *rest = pieces_of(stretch_id(*one))
    assert (path, *as_floats(rest[0] if rest else "0-")) == one


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_ids_of_different_kinds_never_meet(data):
    path, member, start_s = data.draw(odd_names), data.draw(odd_names), data.draw(times)
    sound = data.draw(
        st.sampled_from([escaped(path), stretch_id(path, 1.0, start_s + 2), member_id(path, f"{member}.wav")])
    )
    made = [sound, part_id(sound, 3.0), part_id(sound, 30.0), second_id(sound, 2), second_id(sound, 3)]
    made += [second_id(part_id(sound, 3.0), 2), place_id(path, "row", 2), place_id(path, "byte", 2)]
    made += [member_id(path, f"{before}9.wav") for before in ("", "~", "#", "~#", "##", "~~")]
    assert len({*made}) == len(made)
    assert part_of(part_id(sound, 3.0)) == (sound, 3000)


@pytest.mark.parametrize(
    ("clip", "folder"),
    [
        ("a.wav", "a"),
        ("sub.x/a.b.wav#30000", "sub.x/a.b#30000"),
        ("x.tar#sub/b.flac", "x#sub/b"),
        ("a.wav#333.33-666.66", "a#333.33-666.66"),
        ("a.wav#100-333.33#30000", "a#100-333.33#30000"),
        ("a.x##b.wav", "a.x##b"),
        ("old.x#b.wav", "old#b"),
    ],
)
def test_what_belongs_to_a_clip_lies_under_its_id_without_suffixes(clip, folder):
    assert without_suffixes(clip) == folder


def test_pictures_of_a_sound_with_a_hash_in_its_name_are_found_under_that_name(tmp_path: Path):
    (tmp_path / "take#1").mkdir()
    assert Pictures(tmp_path).folder(escaped("take#1.wav")) == tmp_path / "take#1"
