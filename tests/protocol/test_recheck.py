"""verify --rules: what earlier rules published wrongly is listed, and what they published rightly is not.

The earlier rules are stood in for by a change of what a source reads while the dataset is made.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inline import run_inline
from movies import film
from typer.testing import CliRunner

from wavmill.cluster.cli import app
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.dataset_job import fingerprint, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.published import find_dataset
from wavmill.pipeline.recheck import Finding, published_plans, recheck
from wavmill.pipeline.rows import column_of, replace
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.sources.webdataset import WebDataset
from wavmill.pipeline.workspace import Workspace

JOB = """
name: words
source: {{kind: files, path: "{root}/in"}}
clip: {{max_s: 2}}
feature: {{kind: mel}}
store: "{root}/out"
"""


@pytest.fixture
def corpus(tmp_path, tone, wav) -> Path:
    """Five sounds, one of them of three clips, and one file that is none."""
    for number, seconds in enumerate((0.5, 1.0, 1.5, 5.0, 0.7)):
        path = tmp_path / "in" / ("a" if number % 2 else "b") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(tone(seconds, seed=number)))
    (tmp_path / "in" / "none.wav").write_bytes(b"no sound at all")
    return tmp_path


def job_of(root: Path, text: str = JOB):
    (root / "my.yaml").write_text(text.format(root=root))
    return resolve(parse_job((root / "my.yaml").read_text(), str(root / "my.yaml")))


def made_by_older(monkeypatch, job, kind: type, rule: Callable[[pa.Table], pa.Table]) -> None:
    """Publish the job's dataset by another rule of reading, under the fingerprint of an earlier version."""
    read = kind.read
    with monkeypatch.context() as older:
        older.setattr(kind, "version", 0)
        older.setattr(kind, "read", lambda self, objects, clip, rate_hz: rule(read(self, objects, clip, rate_hz)))
        before = fingerprint(job)
        run_inline(job)
    assert fingerprint(job) != before


def found_in(job) -> list[Finding]:
    dataset = find_dataset(job.address)
    return list(recheck(job, dataset, published_plans(job, dataset)))


def edited(table: pa.Table, clip: str, **values: object) -> pa.Table:
    for name, value in values.items():
        told = [value if row == clip else old for row, old in zip(table["clip"].to_pylist(), table[name].to_pylist(),
                                                                  strict=True)]  # fmt: skip
        table = replace(table, name, pa.array(told, table.schema.field(name).type))
    return table


def with_sound(table: pa.Table, clip: str, seconds: float, **values: object) -> pa.Table:
    """The table with another sound of a clip."""
    count = round(16_000 * seconds)
    waves = [
        np.full(count, 0.1, np.float32) if name == clip else np.array(wave, np.float32)
        for name, wave in zip(table["clip"].to_pylist(), table["audio"].to_pylist(), strict=True)
    ]
    table = replace(table, "audio", column_of(waves, table.schema.field("audio").type))
    return edited(table, clip, seconds=seconds, lead_samples=0, kept_samples=count, peak=0.1, rms_db=-20.0, **values)


def with_another(table: pa.Table, clip: str, name: str) -> pa.Table:
    """The table with one of its rows once more, under another id."""
    row = table.filter(pa.array([one == clip for one in table["clip"].to_pylist()]))
    return pa.concat_tables([table, replace(row, "clip", pa.array([name] * row.num_rows, pa.string()))])


def test_a_dataset_of_today_s_rules_has_no_findings(corpus):
    job = job_of(corpus)
    assert run_inline(job).counts.clips == 8
    assert found_in(job) == []


@pytest.mark.parametrize(
    ("kind", "clip", "rule"),
    [
        ("rejected", "none.wav", lambda t: with_sound(t, "none.wav", 1.0, error="", stage="", message="")),
        ("accepted", "b/2.wav", lambda t: edited(t, "b/2.wav", error="truncated", stage="decode", message="it ends")),
        ("otherwise", "a/1.wav", lambda t: edited(t, "a/1.wav", label="c")),
        ("length", "b/4.wav", lambda t: with_sound(t, "b/4.wav", 0.3)),
        ("new", "b/0.wav", lambda t: t.filter(pa.array([c != "b/0.wav" for c in t["clip"].to_pylist()]))),
        ("gone", "b/0.wav~old", lambda t: with_another(t, "b/0.wav", "b/0.wav~old")),
    ],
)  # fmt: skip
def test_what_earlier_rules_had_otherwise_is_found_and_nothing_else(corpus, monkeypatch, kind, clip, rule):
    job = job_of(corpus)
    made_by_older(monkeypatch, job, Files, rule)
    [found] = found_in(job)
    assert (found.kind, found.clip, found.source) == (kind, clip, clip.removesuffix("~old"))


def test_the_verb_lists_them_and_ends_with_1_and_with_0_when_there_is_none(corpus, monkeypatch):
    job = job_of(corpus)
    made_by_older(monkeypatch, job, Files, lambda t: edited(t, "a/1.wav", label="c"))

    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["verify", str(corpus / "my.yaml"), *options])
        return result.exit_code, " ".join(result.output.split())

    code, said = run("--rules", "--list", str(corpus / "all.jsonl"))
    assert code == 1 and "otherwise 1 clips" in said and "a/1.wav: label is 'c', would be 'a'" in said
    [line] = (corpus / "all.jsonl").read_text().splitlines()
    assert json.loads(line)["clip"] == "a/1.wav"
    run_inline(job)  # today's rules make the next version, which is the one that is looked at
    assert run("--rules")[0] == 0
    _, said = run("--rules", "--set", "clip.min_s=0.6")
    assert "clip.min_s was 0.1, is 0.6" in said and "b/0.wav: too_short" in said
    assert run("--list", str(corpus / "all.jsonl"))[0] != 0


def test_texts_that_stand_beside_other_sounds_are_found(tmp_path, monkeypatch, tone, wav):
    """As a tar's texts once were merged: every clip has the text of the last."""
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "t.tar", "w") as tar:
        for number, name in enumerate("pqr"):
            data = {"wav": wav(tone(0.5, seed=number)), "json": json.dumps({"text": f"said {name}"}).encode()}
            for suffix, content in data.items():
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    job = job_of(tmp_path, JOB.replace("files, path", "webdataset, carry: [text], path"))
    made_by_older(monkeypatch, job, WebDataset,
                  lambda t: replace(t, "text", pa.array(["said r"] * t.num_rows, pa.string())))  # fmt: skip
    found = found_in(job)
    assert sorted((one.kind, one.message) for one in found) == [
        ("otherwise", "text is 'said r', would be 'said p'"), ("otherwise", "text is 'said r', would be 'said q'"),
    ]  # fmt: skip


MANIFEST = """
name: rows
source: {{kind: manifest, path: "{root}/in/rows.tsv", carry: [text]}}
feature: {{kind: mel}}
store: "{root}/out"
"""


def test_rows_of_a_manifest_that_were_lost_or_read_otherwise_are_found(corpus, monkeypatch):
    """They stand in the plan as they were read then: an unbalanced quote swallowed rows of a TSV."""
    rows = [("a/1.wav", "one"), ("a/3.wav", '"three'), ("b/0.wav", "zero"), ("b/2.wav", "two")]
    text = "".join(f"{path}\t{said}\n" for path, said in [("path", "text"), *rows])
    (corpus / "in" / "rows.tsv").write_text(text)
    job = job_of(corpus, MANIFEST)
    listed = Manifest.objects

    def as_it_was(self, clip, left_out):
        for table in listed(self, clip, left_out):
            swallowed = table.filter(pa.array([path != "b/0.wav" for path in table["path"].to_pylist()]))
            told = [one.replace('"three', "three\nb/0.wav\tzero") for one in swallowed["text"].to_pylist()]
            yield replace(swallowed, "text", pa.array(told, pa.string()))

    with monkeypatch.context() as older:
        older.setattr(Manifest, "objects", as_it_was)
        older.setattr(Manifest, "version", 0)
        run_inline(job)
    kinds = {(found.kind, found.source) for found in found_in(job)}
    assert kinds == {("otherwise", "a/3.wav"), ("new", "b/0.wav")}


def test_a_clip_that_is_published_twice_is_found(corpus):
    job = job_of(corpus)
    dataset = run_inline(job)
    path = Path(job.address, "v1", dataset.parts[0].path)
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(2, 1)]), path)
    assert {(one.kind, one.clip) for one in found_in(job)} == {
        ("twice", table["clip"][2].as_py()), ("gone", table["clip"][2].as_py())
    }  # fmt: skip


def test_ids_that_are_only_written_otherwise_are_no_findings(tmp_path, monkeypatch, tone, wav):
    """Escaped #, and stretches of a manifest that are named by both ends."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p#1.wav").write_bytes(wav(tone(4.5)))
    (tmp_path / "m.jsonl").write_text('{"path": "in/p#1.wav"}\n{"path": "in/p#1.wav", "start_s": 1.0, "end_s": 1.5}\n')
    job = job_of(tmp_path, JOB.replace('files, path: "{root}/in"', 'manifest, path: "{root}/m.jsonl"'))

    def older(table: pa.Table) -> pa.Table:
        places = zip(table["clip"].to_pylist(), table["start_s"].to_pylist(), strict=True)
        names = [f"in/p##1.wav#{round(1000 * start_s)}-{number}" for number, (_, start_s) in enumerate(places)]
        return replace(table, "clip", pa.array(names, pa.string()))

    made_by_older(monkeypatch, job, Manifest, older)
    assert len(found_in(job)) == 0


def test_of_an_object_that_was_planned_again_the_last_plan_counts(corpus, tone, wav):
    """A file that was changed between two versions, and one that came later."""
    job = job_of(corpus)
    run_inline(job)
    (corpus / "in" / "b" / "0.wav").write_bytes(wav(tone(1.9, seed=9)))
    (corpus / "in" / "new.wav").write_bytes(wav(tone(0.4)))
    assert run_inline(job).version == 2
    assert found_in(job) == []


def test_films_whose_rate_would_be_refused_are_found(tmp_path, monkeypatch, tone):
    (tmp_path / "in").mkdir()
    at_s = np.cumsum([0, *[0.02, 0.06] * 24]).tolist()
    (tmp_path / "in" / "f.mkv").write_bytes(film(tone(1.9), 49, 25, "mkv", at_s=at_s))
    job = job_of(tmp_path, JOB + "check: {{max_step_gap: 20}}\n")
    made_by_older(monkeypatch, job, Files, lambda t: with_sound(
        t, "f.mkv", 1.9, error="", stage="", message="", frames=49, fps="2450/99"))  # fmt: skip
    [found] = found_in(job)
    assert found.kind == "rejected" and found.message.startswith("variable_frame_rate: ")


def test_plans_that_are_gone_are_an_error(corpus):
    job = job_of(corpus)
    run_inline(job)
    for plan in Path(job.store, "_mill", "plan").rglob("0001.json"):
        plan.unlink()
    with pytest.raises(JobError, match="no plans"):
        found_in(job)


def test_memory_holds_a_bucket_and_every_row_is_compared(corpus, monkeypatch):
    job = job_of(corpus)
    made_by_older(monkeypatch, job, Files, lambda t: replace(t, "label", pa.array(["x"] * t.num_rows, pa.string())))
    whole = found_in(job)
    monkeypatch.setattr("wavmill.pipeline.recheck.BUCKET_CLIPS", 1)
    assert sorted(found_in(job)) == sorted(whole) and len(whole) == 7
    assert make_plans(Workspace(job))
