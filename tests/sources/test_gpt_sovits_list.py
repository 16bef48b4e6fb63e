"""List files of GPT-SoVITS: what upstream reads is a clip, what it loses is a reject, two sounds with one name stop."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import read_parquet, rows_of, run_inline

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.formats.manifest_meaning import Rows
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.sources.gpt_sovits import GptSovitsList
from wavmill.pipeline.workspace import Workspace

LANGUAGES = ["ZH", "zh", "JP", "JA", "EN", "en", "KO", "YUE"]


def job_over(top: Path, root: str = ""):
    source = f"{{kind: gpt_sovits, path: {top}/slicer.list{f', root: {root}' if root else ''}}}"
    return resolve(parse_job(f"name: list\nsource: {source}\nfeature: {{kind: mel}}\nstore: {top}/store\n"))


@pytest.fixture
def sounds(tmp_path, tone, wav) -> Path:
    for name in ("a.wav", "b c.flac", "noch eins.WAV"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wav(tone(0.4), format="FLAC" if name.endswith("flac") else "WAV"))
    return tmp_path


def test_every_line_is_a_clip_or_says_why_not(sounds):
    (sounds / "slicer.list").write_text(
        "clips/a.wav|anna|EN|Hello, world.\n"
        f'"{sounds}/clips/b c.flac"|bert|zh|你好\n'
        "\n"
        "clips/noch eins.WAV|anna|JA|a | b\n"
        "clips/noch eins.WAV|anna|DE|Guten Tag\n"
        "clips/none.wav|anna|KO|없음\n"
        "clips/short.wav|anna|EN\n",
        encoding="utf-8",
    )
    job = job_over(sounds)
    dataset = run_inline(job)
    rows = {row["clip"]: (row["label"], row["language"], row["text"]) for row in rows_of(job, dataset).to_pylist()}
    assert rows == {"a.wav": ("anna", "EN", "Hello, world."), "b c.flac": ("bert", "zh", "你好")}
    bad = read_parquet(Path(job.address, "v1", "rejects.parquet").read_bytes()).to_pylist()
    assert sorted((row["reason"], row["message"]) for row in bad if row["reason"] == "bad_row") == [
        ("bad_row", "row 3 of slicer.list has 5 fields and not wav|speaker|language|text"),
        ("bad_row", "row 4 of slicer.list has the language 'DE'; GPT-SoVITS reads zh, jp, ja, en, ko, yue"),
        ("bad_row", "row 6 of slicer.list has 3 fields and not wav|speaker|language|text"),
    ]
    assert [row["clip"] for row in bad if row["reason"] == "missing"] == ["none.wav"]
    assert (dataset.counts.clips, dataset.counts.done) == (6, 2)


def test_with_a_root_only_the_names_count(sounds):
    (sounds / "slicer.list").write_text("/where/it/was/a.wav|anna|EN|Hello\nC:\\\\sounds\\\\b c.flac|bert|EN|Hi\n")
    assert run_inline(job_over(sounds, f"{sounds}/clips")).counts.done == 2


def test_sounds_with_one_name_stop_the_job_and_are_listed(sounds):
    lines = [f"{folder}/{name}.wav|anna|EN|Hello\n" for folder in ("one", "two") for name in ("a", "b", "c")]
    (sounds / "slicer.list").write_text("".join([*lines, "one/d.wav|anna|EN|Hello\n"]))
    work = Workspace(job_over(sounds))
    with pytest.raises(
        JobError, match=r"3 clips of .*: 'a\.wav' \(rows 1 and 4\), 'b\.wav' .*, 'c\.wav'.*; GPT-SoVITS"
    ):
        make_plans(work)


def test_a_list_that_is_none_is_one_clear_error(sounds):
    with pytest.raises(JobError, match="does not exist"):
        make_plans(Workspace(job_over(sounds)))
    (sounds / "slicer.list").write_bytes("clips/a.wav|anna|ZH|你好\n".encode("gbk"))
    with pytest.raises(JobError, match="row 1 is not UTF-8; save it as UTF-8"):
        make_plans(Workspace(job_over(sounds)))
    (sounds / "slicer.list").write_text("")
    with pytest.raises(JobError, match="has no rows"):
        make_plans(Workspace(job_over(sounds)))


def upstreams(path: str) -> str:
    """tools/my_utils.py, clean_path, and the name that every step makes of it (on Linux)."""
    if path.endswith(("\\", "/")):
        return upstreams(path[:-1])
    return path.replace("\\", "/").strip(" '\"\n\u202a").rpartition("/")[2]


names = st.text(st.sampled_from("ab.c' \"-"), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100)
@given(path=st.lists(names, min_size=1, max_size=3).map("/".join), around=st.sampled_from(["", '"', " ", "\u202a"]))
def test_a_clip_is_named_as_upstream_names_it(path, around):
    written = around + path + around
    rows = Rows([1], [written], [written], False, [None], [None], [None], {}, [None])
    [clip], [fault] = (lambda named: (named.clips, named.faults))(GptSovitsList(path="x.list")._named(rows, "x.list"))
    assert (clip, fault) == (upstreams(written), None) if upstreams(written) else fault is not None
