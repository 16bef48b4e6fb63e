"""How manifests are read: every row is a clip with its own text, or a reject with its number; nothing is guessed."""

import csv
import gzip
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.formats import manifest_rows, manifest_text
from wavmill.pipeline.formats.manifest_text import lines_of
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.preview import findings
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.sources.manifest import Manifest

quick = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
NO_BREAKS = st.characters(codec="utf-8", exclude_characters="\t\n\r\0")
ANY = st.characters(codec="utf-8", exclude_characters="\0")
one_line = st.lists(st.sampled_from('"", a') | NO_BREAKS, max_size=6).map("".join)  # half of them of what means much
texts = st.lists(one_line, min_size=1, max_size=8)
any_text = st.lists(st.sampled_from('"",\n\r a') | ANY, max_size=6).map("".join)


def listed(folder: Path, data: str | bytes, name: str = "m.csv", clip: Clip = Clip(), **options: Any) -> list[Any]:
    """The planned rows of a manifest, in its order."""
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    source = Manifest(path=str(folder / name), **options)
    return [row for table in Listing(source, clip) for row in table.to_pylist()]


def seen(folder: Path, *arguments: Any, column: str = "text", **options: Any) -> list[tuple[str, str | None]]:
    """(path, a text; or the reason of a reject) of each row."""
    rows = listed(folder, *arguments, **options)
    return [(row["path"], row["reason"] if row["reason"] == "bad_row" else row[column]) for row in rows]


def written(rows: list[list[str]], **how: Any) -> str:
    sink = io.StringIO()
    csv.writer(sink, **how).writerows(rows)
    return sink.getvalue()


# ---- CSV and TSV -------------------------------------------------------------------------------------------------


@quick
@given(some=texts)
def test_a_tsv_has_no_quoting_so_every_row_keeps_its_own_text(tmp_path, some):
    lines = ["path\ttext", *(f"{number}.wav\t{text}" for number, text in enumerate(some))]
    wanted = [(f"{number}.wav", text) for number, text in enumerate(some)]
    assert seen(tmp_path, "\n".join(lines), "m.tsv", carry=("text",)) == wanted


@quick
@given(some=st.lists(any_text, min_size=1, max_size=6), delimiter=st.sampled_from([",", "\t"]))
def test_what_a_csv_writer_quotes_is_read_back_over_any_number_of_lines(tmp_path, some, delimiter):
    data = written([["path", "text"], *([f"{n}.wav", text] for n, text in enumerate(some))], delimiter=delimiter)
    name, quoting = ("m.csv", "auto") if delimiter == "," else ("m.tsv", "csv")
    wanted = [(f"{n}.wav", text) for n, text in enumerate(some)]
    assert seen(tmp_path, data, name, carry=("text",), quoting=quoting) == wanted


@quick
@given(some=texts, at=st.sets(st.integers(0, 7)), label=st.sampled_from(["L", '"L"', 'L"']))
def test_a_stray_quote_in_a_csv_costs_no_row_but_its_own(tmp_path, some, at, label):
    """Each text is quoted as it should be, or, at the places drawn, begins with a quote that nothing closes."""
    lines = ["path,text,label"]
    for number, text in enumerate(some):
        plain = text.replace('"', "").replace(",", "")
        lines.append(
            f'{number}.wav,"{plain},{label}' if number in at else written([[f"{number}.wav", text, "L"]]).strip()
        )
    *found, last = seen(tmp_path, "\n".join([*lines, "last.wav,fine,L"]), carry=("text",))
    assert len(found) == len(some) and last == ("last.wav", "fine")
    for number, (text, (path, got)) in enumerate(zip(some, found, strict=True)):
        broken = got == "bad_row" and path in (f"{number}.wav", "m.csv")
        assert broken or (path, got) == (f"{number}.wav", text)
        assert broken or number not in at


def test_a_quote_that_is_closed_by_another_row_is_told_from_a_text_of_several_lines(tmp_path):
    data = 'path,text,label\na.wav,"one,A\nb.wav,two",B\nc.wav,"three\nlines, of\ntext",C\n'
    found = seen(tmp_path, data, carry=("text",))
    assert found == [("m.csv", "bad_row"), ("b.wav", 'two"'), ("c.wav", "three\nlines, of\ntext")]


def test_a_quote_that_is_never_closed_takes_linear_time_and_one_row(tmp_path):
    rows = [f'{number}.wav,"open' for number in range(20_000)]
    found = seen(tmp_path, "\n".join(["path,text", *rows]) + "\nlast.wav,fine\n", carry=("text",))
    assert len(found) == 20_001 and found[-1] == ("last.wav", "fine")


# ---- JSON --------------------------------------------------------------------------------------------------------

as_written = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=30).map(lambda number: f"{number:f}"),
    st.sampled_from(["true", "false", "1.0", "1e400", "-0.0", "1E5", "0.10"]),
)


@quick
@given(values=st.lists(as_written, min_size=2, max_size=6))
def test_numbers_of_a_json_keep_the_digits_they_are_written_in(tmp_path, values):
    lines = [f'{{"path": "{n}.wav", "label": {value}, "x": [{value}]}}' for n, value in enumerate(values)]
    rows = listed(tmp_path, "\n".join(lines), "m.jsonl", carry=("x",))
    assert [(row["label"], row["x"]) for row in rows] == [(value, f"[{value}]") for value in values]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@quick
@given(others=st.lists(st.dictionaries(st.sampled_from(["duration", "words", "x", "audio"]), anything), min_size=1))
def test_columns_that_nobody_asked_for_may_hold_anything(tmp_path, others):
    rows = [{"path": f"{number}.wav", "text": "t", **other} for number, other in enumerate(others)]
    wanted = [(row["path"], "t") for row in rows]
    assert seen(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl", carry=("text",)) == wanted
    assert seen(tmp_path, json.dumps(rows, indent=1), "m.json", carry=("text",)) == wanted


def test_a_row_of_several_mib_is_read(tmp_path):
    rows = [{"path": f"{n}.wav", "words": ["word" * 10] * 60_000} for n in range(2)]
    assert len(listed(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")) == 2
    assert len(listed(tmp_path, json.dumps(rows), "m.json")) == 2
    assert len(listed(tmp_path, f"path,text\na.wav,{'x' * 3_000_000}\n")) == 1


def test_what_a_column_means_does_not_depend_on_where_it_is_first_named(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_rows, "BATCH_ROWS", 2)
    rows = [{"path": f"sub/{n}.wav"} for n in range(7)] + [{"path": "sub/7.wav", "label": "last", "start_s": 1}]
    found = listed(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")
    assert [row["label"] for row in found] == [None] * 7 + ["last"] and found[-1]["start_s"] == 1


# ---- rows with a fault -------------------------------------------------------------------------------------------

GOOD = '{"path": "a.wav", "text": "t", "start_s": %d, "end_s": %d}'
BAD = [
    '{"path": "a.wav", "text": "t"', "[1]", "7", "a.wav", '{"path": null}', '{"path": ""}', '{"text": "t"}',
    '{"path": "a.wav", "start_s": 2, "end_s": 1}', '{"path": "a.wav", "start_s": -1}', '{"path": ["a.wav"]}',
    '{"path": "a.wav", "start_s": "soon"}', '{"path": "a.wav", "start_s": true}', '{"path": "a.wav", "start_s": NaN}',
    '{"path": "a.wav", "text": "\\ud800"}', '{"path": "\\udc00"}', '{"path": "a.wav", "path": "b.wav"}',
    '{"path": "a.wav", "text": "a\tb"}', "[" * 100_000, '{"path": "a.wav"} {"path": "b.wav"}',
]  # fmt: skip


@quick
@given(kinds=st.lists(st.none() | st.sampled_from(BAD), min_size=1, max_size=12).filter(lambda kinds: None in kinds))
def test_a_malformed_row_is_one_reject_with_its_number_and_ends_nothing(tmp_path, kinds):
    lines = [GOOD % (n, n + 1) if kind is None else kind for n, kind in enumerate(kinds)]
    found = listed(tmp_path, "\n".join(["", *lines, ""]), "m.jsonl", carry=("text",))
    assert len(found) == len(kinds) and len({row["clip"] for row in found}) == len(kinds)
    for number, (kind, row) in enumerate(zip(kinds, found, strict=True), 1):
        if kind is None:
            assert (row["reason"], row["start_s"], row["clip"]) == (
                None,
                number - 1,
                f"a.wav#{1000 * number - 1000}-{1000 * number}",
            )
        else:
            assert row["reason"] == "bad_row" and row["message"].startswith(f"row {number} of m.jsonl ")
            assert row["clip"].endswith(f"#~row{number}")


def test_rows_of_another_number_of_fields_are_rejects_with_their_number(tmp_path):
    data = "path,text\na.wav,one\nb.wav\n\nc.wav,two,three\nd.wav,four\n"
    rows = listed(tmp_path, data, carry=("text",))
    assert [(row["path"], row["text"]) for row in rows if not row["reason"]] == [("a.wav", "one"), ("d.wav", "four")]
    bad = [row["message"] for row in rows if row["reason"]]
    assert bad == ["row 2 of m.csv has 1 fields and not 2", "row 3 of m.csv has 3 fields and not 2"]


def test_a_bad_row_becomes_a_row_of_the_rejects_and_keeps_the_id_it_was_given(tmp_path, wav, tone):
    (tmp_path / "a.wav").write_bytes(wav(tone(0.3)))
    (tmp_path / "m.csv").write_text("path,clip,start_s\na.wav,one,0\na.wav,two,soon\n,three,\n")
    source = Manifest(path=str(tmp_path / "m.csv"))
    rows = source.read(pa.concat_tables(Listing(source, Clip())), Clip(), 16_000).to_pylist()
    assert [(row["clip"], row["error"]) for row in rows] == [("one", ""), ("two", "bad_row"), ("three", "bad_row")]
    assert rows[1]["message"] == "row 2 of m.csv has 'soon' in start_s, which is not a number"


def test_a_manifest_of_malformed_rows_alone_is_a_job_error_that_shows_some(tmp_path):
    with pytest.raises(JobError, match=r"no row of .* can be used: row 1 of m\.jsonl is no JSON object; row 2"):
        listed(tmp_path, "[1]\n".replace("[1]", "1\n2\n3\n4"), "m.jsonl")


@pytest.mark.parametrize("data", ['[{"path": "a.wav"}, {"path": ]', '[{"path": "a.wav"} {}]', '[{"path": "a.wav"}] x'])
def test_an_array_that_cannot_be_read_on_is_a_job_error(tmp_path, data):
    with pytest.raises(JobError, match=r"row 2 is not JSON|after row 1|follows its array of 1"):
        listed(tmp_path, data, "m.json")


# ---- bytes -------------------------------------------------------------------------------------------------------

ROWS = [["path", "text"], *([f"{n}.wav", "a café"] for n in range(5))]
WANTED = [tuple(row) for row in ROWS[1:]]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "gbk", "utf-16-le", "cp1252"]
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_an_encoding_is_told_by_its_mark_or_by_the_job(tmp_path, monkeypatch, kind, encoding, chunk):
    monkeypatch.setattr(manifest_text, "CHUNK_BYTES", chunk)
    objects = "\n".join(json.dumps(dict(zip(*([ROWS[0], row]), strict=True)), ensure_ascii=False) for row in ROWS[1:])
    data = objects if kind == "jsonl" else written(ROWS, delimiter="," if kind == "csv" else "\t")
    told = {} if encoding.startswith("utf") and encoding != "utf-16-le" else {"encoding": encoding}
    assert seen(tmp_path, data.encode(encoding), f"m.{kind}", carry=("text",), **told) == WANTED


@quick
@given(
    at=st.integers(0, 5), kind=st.sampled_from(["csv", "tsv", "jsonl", "json"]), many=st.sampled_from([1, 64, 1 << 18])
)
def test_bytes_that_are_not_text_name_their_row_and_the_way_out(tmp_path_factory, at, kind, many):
    folder = tmp_path_factory.mktemp("latin")
    rows = [{"path": f"{n}.wav", "text": "é" if n == at else "x"} for n in range(6)]
    joined = {
        "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "json": json.dumps(rows, ensure_ascii=False),
    }
    lines = [["path", "text"], *([row["path"], row["text"]] for row in rows)]
    data = joined.get(kind) or written(lines, delimiter="," if kind == "csv" else "\t")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_text, "CHUNK_BYTES", many)
        with pytest.raises(JobError) as error:
            listed(folder, data.encode("latin-1"), f"m.{kind}", carry=("text",))
    assert f"row {at + 1} is not UTF-8; save it as UTF-8 or say encoding:" in str(error.value)


def test_an_encoding_that_is_none_is_a_problem_of_the_job():
    with pytest.raises(JobError, match="there is no text encoding 'hex'"):
        parse_job("name: a\nsource: {kind: manifest, path: m.csv, encoding: hex}\nstore: s\n", "a.yaml")


@quick
@given(
    ends=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), last=st.sampled_from(["", "\n", "\n\n"]), packed=st.booleans(),
    quoting=st.sampled_from(["csv", "none"]), chunk=st.integers(1, 9),
)  # fmt: skip
def test_line_ends_blank_lines_and_gzip_change_nothing(tmp_path, ends, last, packed, quoting, chunk):
    data = (ends.join(",".join(row) for row in ROWS) + last).encode()
    name = "M.CSV.gz" if packed else "m.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_text, "CHUNK_BYTES", chunk)
        data = gzip.compress(data) if packed else data
        assert seen(tmp_path, data, name, carry=("text",), quoting=quoting) == WANTED


@settings(deadline=None)
@given(pieces=st.lists(st.text("ab\n\r", max_size=4)), returns=st.booleans())
def test_lines_are_the_same_wherever_the_text_was_cut(pieces, returns):
    whole = io.StringIO("".join(pieces), "" if returns else "\n")
    assert list(lines_of(pieces, returns)) == list(whole)


@settings(deadline=None)
@given(pieces=st.lists(st.text("abcde\n", max_size=9)))
def test_a_line_that_is_too_long_is_one_line_and_ends_where_it_ends(pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_text, "MOST_CHARS", 10)
        got = list(lines_of(pieces, returns=False))
    wanted = list(io.StringIO("".join(pieces), "\n"))
    assert len(got) == len(wanted)
    assert all(mine == line if mine is not None else len(line) > 10 for mine, line in zip(got, wanted, strict=True))


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_gz_that_breaks_off_is_a_job_error(tmp_path, cut):
    data = gzip.compress("".join(f"{n}.wav\n" for n in range(9)).encode())
    with pytest.raises(JobError, match=r"is no whole \.gz"):
        listed(tmp_path, data[: round(len(data) * cut)], "m.csv.gz")


# ---- columns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["audio_filepath", "audio_path", "wav", "file_name", "filename", "audio", "file"])
def test_a_path_may_have_the_name_that_other_tools_give_it(tmp_path, kind, name):
    row = {name: "a.wav", "sentence": "hello", "client_id": "7", "duration": "3.5"}
    data = written([[*row], [*row.values()]]).encode() if kind == "csv" else json.dumps(row).encode()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
        data = (tmp_path / "m.parquet").read_bytes()
    [got] = listed(tmp_path, data, f"m.{kind}", carry=("text", "speaker"), label="speaker")
    assert [got[key] for key in ("path", "text", "speaker", "label", "end_s")] == ["a.wav", "hello", "7", "7", None]


def test_plan_says_which_column_is_read_for_which(tmp_path):
    (tmp_path / "m.csv").write_text("audio_path,sentence,start\na.wav,hello,1\n")
    source = Manifest(path=str(tmp_path / "m.csv"), carry=("text",))
    listing = Listing(source, Clip())
    list(listing)
    remarks = listing.left_out.remarks
    assert remarks[:2] == ["path is read from the column audio_path", "text is read from the column sentence"]
    assert remarks[2].startswith("start are not read") or remarks[2].startswith("start is not read")


def test_two_columns_that_could_be_the_path_are_an_error_and_wavmills_own_name_is_not(tmp_path):
    with pytest.raises(JobError, match="'audio_path' and 'wav'; call the right one 'path'"):
        listed(tmp_path, "wav,audio_path\na.wav,b.wav\n")
    assert [row["path"] for row in listed(tmp_path, "wav,audio_path,path\na.wav,b.wav,c.wav\n")] == ["c.wav"]


def test_offset_and_duration_are_a_stretch_and_duration_alone_is_none(tmp_path):
    rows = [{"audio_filepath": "a.wav", "offset": 0.1, "duration": 0.2}, {"audio_filepath": "b.wav", "duration": 2}]
    found = listed(tmp_path, "\n".join(map(json.dumps, rows)), "m.jsonl")
    assert [(row["clip"], row["start_s"], row["end_s"]) for row in found] == [
        ("a.wav#100-300", 0.1, 0.3),
        ("b.wav", None, None),
    ]
    [alone] = listed(tmp_path, "path,duration\na.wav,2\n")
    assert (alone["start_s"], alone["end_s"]) == (None, None)
    [own] = listed(tmp_path, "path,start_s,end_s,offset,duration\na.wav,1,2,5,6\n")
    assert (own["start_s"], own["end_s"]) == (1, 2)


def test_spaces_around_the_name_of_a_column_are_no_part_of_it(tmp_path):
    [row] = listed(tmp_path, "path , label\na.wav,L\n")
    assert row["label"] == "L"


def test_a_parquet_whose_other_columns_are_large_or_nested_is_read(tmp_path):
    rows = [{"path": "a.wav", "audio": {"bytes": b"x" * 100}, "label": 2**64 - 1}]
    pq.write_table(
        pa.table(
            [[r[k] for r in rows] for k in ("path", "audio")] + [pa.array([2**64 - 1], pa.uint64())],
            ["path", "audio", "label"],
        ),
        tmp_path / "m.parquet",
    )
    [row] = listed(tmp_path, (tmp_path / "m.parquet").read_bytes(), "m.parquet")
    assert (row["path"], row["label"]) == ("a.wav", "18446744073709551615")


def test_options_at_their_defaults_leave_the_recipe_as_it_was():
    assert {*Manifest(path="m.csv").recipe()} == {"kind", "version", "label", "carry"}
    assert Manifest(path="m.csv", encoding="gbk", quoting="none").recipe() == {
        **Manifest(path="m.csv").recipe(), "encoding": "gbk", "quoting": "none"
    }  # fmt: skip


# ---- paths and ids -----------------------------------------------------------------------------------------------

SPELLINGS = {
    "/ and not \\ between folders": lambda path: path.replace("/", "\\"),
    "other spaces around names": lambda path: f" {path} ",
    "other capital letters": lambda path: path.upper(),
    "accents in the other Unicode form": lambda path: unicodedata.normalize("NFD", path),
}


@pytest.mark.parametrize("why", SPELLINGS)
@pytest.mark.parametrize("folder", ["clips", "Été"])
def test_a_file_that_is_not_there_is_rejected_with_the_spelling_that_is(tmp_path, wav, tone, why, folder):
    path = f"{folder}/é one.wav"
    (tmp_path / folder).mkdir()
    (tmp_path / path).write_bytes(wav(tone(0.3)))
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": SPELLINGS[why](path)}))
    source = Manifest(path=str(tmp_path / "m.jsonl"))
    objects = pa.concat_tables(Listing(source, Clip()))
    [row] = source.read(objects, Clip(), 16_000).to_pylist()
    assert row["error"] == "missing" and repr(path) in row["message"] and why in row["message"]
    words = " ".join(sentence for _, sentence in findings([], objects))
    assert "1 of 1" in words and repr(path) in words


def test_plan_counts_rows_that_are_malformed_apart_from_files_that_are_not_there(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "gone.wav"}\n{"path": 1, "start_s": 3, "end_s": 2}\n')
    job = parse_job(
        f"name: a\nsource: {{kind: manifest, path: {tmp_path}/m.jsonl}}\nfeature: {{kind: mfcc}}\nstore: s\n", "a.yaml"
    )
    found = dict(findings([], pa.concat_tables(Listing(job.source, Clip()))))
    assert found["malformed"].startswith("1 of 2 rows") and found["not there"].startswith("1 of 2")


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        (["x,a.wav,,", "x#0,b.wav,,"], True),
        (["x,a.wav,,", "x#60000,b.wav,,"], True),
        (["x#30000,b.wav,,", "x,a.wav,,"], True),
        (["x,a.wav,1.5,", "x#31500,b.wav,,"], True),
        (["x,a.wav,1.5,20", "x#31500,b.wav,,"], False),  # it ends before its second part
        (["x,a.wav,,", "x#7,b.wav,,"], False),  # no part begins there
        (["x,a.wav,,", "x#2,a.wav,,", "x#1,b.wav,,"], False),
    ],
)
def test_an_id_that_a_part_of_another_clip_would_have_is_refused(tmp_path, monkeypatch, rows, refused):
    monkeypatch.setattr(manifest_rows, "BATCH_ROWS", 1)
    data = "\n".join(["clip,path,start_s,end_s", *rows])
    if not refused:
        assert len(listed(tmp_path, data)) == len(rows)
        return
    with pytest.raises(JobError, match="as a part of the clip 'x' is when that is cut; give each row a name"):
        listed(tmp_path, data)


def test_rows_that_are_the_same_clip_are_refused_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_rows, "BATCH_ROWS", 2)
    rows = [f"{number}.wav,,{number + 1}" for number in range(9)]
    with pytest.raises(JobError, match=r"1 clips of .* named twice: '1\.wav#0-2000' \(rows 2 and 10\)"):
        listed(tmp_path, "\n".join(["path,start_s,end_s", *rows, "1.wav,0.0,2e0"]))
