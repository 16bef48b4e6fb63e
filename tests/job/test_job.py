"""The job file: every problem at once with its line, and an identity that only what decides the numbers can change."""

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from checkpoints import tiny_hubert, tiny_whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import run_inline, words
from places import ROOT

from wavmill.cluster.cli import app
from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.dataset_job import Job, fingerprint, recipe_of, resolve
from wavmill.pipeline.job.load import load_job, parse_job
from wavmill.pipeline.job.preview import preview, steps_of
from wavmill.pipeline.job.schema import schema
from wavmill.pipeline.job.templates import TEMPLATES
from wavmill.pipeline.job.yaml_text import read_yaml
from wavmill.pipeline.quantizers.codebooks import save_codebook

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
MAKING = [path for path in EXAMPLES if "train" not in path.stem]

MEL = """\
name: a
source: {kind: files, path: x}
feature: {kind: mel}
store: out
"""
TOKENS = MEL + "token: {kind: kmeans, codebook: cb}\n"
WINDOWS = TOKENS + "window: {kind: fixed, length_frames: 10, stride_frames: 5}\n"


def problems(text: str, *sets: str) -> list[str]:
    """What parse_job says is wrong, a line each."""
    with pytest.raises(JobError) as error:
        parse_job(text, "job.yaml", sets)
    return str(error.value).splitlines()


def codebook_for(job: Job, address: Path, codes: int = 4, seed: int = 0) -> None:
    """A made codebook of the right recipe."""
    centroids = np.random.default_rng(seed).normal(size=(codes, 80)).astype(np.float32)
    save_codebook(str(address), Codebook(centroids, recipe_of(job), {}))


# ---- problems, and where they are --------------------------------------------------------------------------------


def test_every_problem_is_found_at_once_in_the_order_of_the_file():
    text = """\
nam: a
source: {kind: file, path: x}
feature:
  kind: mel
  band: 3
clip: {max_s: 0}
store: out
"""
    places = [re.match(r"job\.yaml(?::\d+)?", problem)[0] for problem in problems(text)]
    assert places == ["job.yaml:1", "job.yaml:2", "job.yaml:5", "job.yaml:6", "job.yaml"]  # the last: name is missing


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("kind: mel", "kind: mel, band: 3", "did you mean 'bands'?"),
        ("kind: mel", "kind: mell", "did you mean 'mel'?"),
        ("kind: files", "kind: file", "did you mean 'files'?"),
        ("store: out", "store: out\nfeatures: {}", "did you mean 'feature'?"),
        ("store: out", "store: out\nscale: {feature: {worker: 2}}", "did you mean 'workers'?"),
        ("store: out", "store: out\nfit: {code: 2}", "did you mean 'codes'?"),
    ],
)
def test_a_word_that_is_nearly_right_gets_a_suggestion(old, new, meant):
    [problem] = problems(MEL.replace(old, new))
    assert problem.endswith(meant)


def test_a_word_that_is_like_no_other_gets_the_list():
    [problem] = problems(MEL.replace("kind: mel", "kind: mel, zzz: 3"))
    assert problem.endswith("feature.zzz is not an option of mel; it takes kind, flavour, bands")


@pytest.mark.parametrize("name", ["integer", "int", "floats", "literal", "float_s", "str"])
def test_an_unknown_option_is_named_even_if_it_is_called_like_a_type(name):
    [problem] = problems(MEL.replace("kind: mel", f"kind: mel, {name}: 3"))
    assert problem.startswith(f"job.yaml:3: feature.{name} is not an option of mel")


@pytest.mark.parametrize("value", ["wav2vec9000", "3", "[mel]", "{a: b}", "null", "''"])
def test_an_unknown_kind_is_said_with_those_that_are_known(value):
    [problem] = problems(MEL.replace("kind: mel", f"kind: {value}"))
    assert problem.startswith("job.yaml:3: feature") and "mel, mfcc" in problem


@pytest.mark.parametrize(
    "kind",
    [
        "no.such.module:Class",
        "wavmill.pipeline.features.mel:Nothing",
        "os:path",  # a module
        "collections:Counter",  # a class that is no choice
        "..mel:Mel",  # a relative import
        ":Mel",
        "mel:",
        "wavmill.pipeline.decoding.decode:Clip",  # a choice, but no step
    ],
)
def test_a_class_from_outside_that_is_no_feature_is_a_problem_of_its_line(kind):
    [problem] = problems(MEL.replace("kind: mel", f"kind: '{kind}'"))
    assert problem.startswith(f"job.yaml:3: feature.kind '{kind}'")


def test_a_class_from_outside_that_is_no_source_is_a_problem_of_its_line():
    [problem] = problems(MEL.replace("{kind: files, path: x}", "{kind: 'wavmill.pipeline.features.mel:Mel'}"))
    assert problem.startswith("job.yaml:2: source.kind 'wavmill.pipeline.features.mel:Mel' is no source")


def test_a_section_that_is_a_word_shows_how_to_write_it():
    assert problems(MEL.replace("{kind: mel}", "mel")) == [
        "job.yaml:3: feature takes {kind: ..., ...}; kinds: mel, mfcc, hubert, whisper"
    ]


@pytest.mark.parametrize("text", [MEL + "name: b\n", MEL.replace("kind: mel", "kind: mel, bands: 8, kind: mfcc")])
def test_a_key_that_stands_twice_is_a_mistake(text):
    [problem] = problems(text)
    assert problem.endswith("stands twice")


def test_a_key_that_stands_twice_is_shown_where_it_stands_again():
    assert problems(MEL + "store: there\n") == ["job.yaml:5: 'store' stands twice"]


def test_a_merged_section_keeps_its_own_options():
    text = MEL.replace("{kind: mel}", "&mel {kind: mel, bands: 40}") + "fit: {codes: 9}\n"
    text = text.replace("feature: &mel", "feature:\n  <<: &mel").replace("bands: 40}", "bands: 40}\n  bands: 20")
    assert parse_job(text).feature.bands == 20


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E2", 100.0), ("2e0", 2.0), (".5", 0.5), ("1_0.0", 10.0)]
)
def test_a_number_may_be_written_with_an_exponent(text, value):
    assert parse_job(MEL + f"clip: {{min_s: {text}}}\n").clip.min_s == value


@pytest.mark.parametrize("text", ["1e", "e3", "1e-3s", "--1", "1.2.3"])
def test_what_only_looks_like_a_number_is_refused_as_one(text):
    [problem] = problems(MEL + f"clip: {{min_s: {text}}}\n")
    assert problem.startswith(f"job.yaml:5: clip.min_s is '{text}'")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", "a b"),
        ("name", "../a"),
        ("name", "_mill"),
        ("name", '"a\\n"'),
        ("name", "5"),
        ("clip.min_s", "-1"),
        ("clip.min_s", ".nan"),
        ("clip.min_s", ".inf"),
        ("clip.max_s", "0"),
        ("clip.max_s", "1.5"),
        ("clip.channel", "left"),
        ("clip.channel", "-1"),
        ("feature.bands", "7"),
        ("feature.bands", "1e400"),
        ("token.sha256", "abc"),
        ("token.codes", "0"),
        ("window.length_frames", "0"),
        ("window.tail", "cut"),
        ("keep", "token"),
        ("keep", "[tokens]"),
        ("fit.codes", "1"),
        ("fit.seed", "-1"),
        ("scale.feature.workers", "0"),
        ("scale.feature.workers", "many"),
        ("scale.feature.gpus", "-1"),
        ("scale.feature.gpus", ".nan"),
        ("scale.decode.cpus", "[1]"),
        ("store", "null"),
        ("source.path", "3"),
    ],
)
def test_a_value_out_of_its_range_is_one_problem_that_names_the_option(option, value):
    [problem] = problems(WINDOWS, f"{option}={value}")
    assert re.match(rf"job\.yaml(:\d+)?: {re.escape(option)}\b", problem)


def test_no_problem_says_what_it_should_be_in_two_half_sentences():
    assert problems(MEL, "name=a b") == [
        "job.yaml: name is 'a b'; String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!python/object/new:dict []",
        "!own 3",
    ],
)
def test_no_tag_makes_anything(text):
    [problem] = problems(MEL + f"fit: {text}\n")
    assert problem.startswith("job.yaml:5: could not determine a constructor for the tag")


@pytest.mark.parametrize("text", ["", "3", "- a", "just words", "null", "---\n...", "# a comment"])
def test_a_file_that_is_no_mapping_is_told_how_to_get_one(text):
    assert problems(text) == ["job.yaml is not a job; 'wavmill new tokens' writes one to start from"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x: [1", "expected ',' or ']'"),
        ("x: !!set {y}", "constructor for the tag"),
        ("x: \x07", "U+0007"),
        ("x: !!int y", "no int"),
        ("x: !!int ''", "no int"),
        ("x: 0b_", "no int"),
        ("x: " + "1" * 5000, "no int"),
        ("x: @y", "cannot start any token"),
        ("x: *nobody", "undefined alias"),
        ("? [a]\n: b", "unhashable"),
    ],
)
def test_what_yaml_cannot_read_is_shown_at_its_line(line, said):
    place, _, message = problems(MEL + line + "\n")[0].partition(": ")
    assert place in ("job.yaml:5", "job.yaml:6") and said in message


@pytest.mark.parametrize("text", ["[" * 1200, "{a: " * 1200, "fit: &a {b: *a}", "clip: &a [*a]"])
def test_a_file_without_a_bottom_is_a_job_error(text):
    assert problems(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(JobError, match=r"cannot read the job file .*nothing\.yaml: No such file"):
        load_job(tmp_path / "nothing.yaml")


def test_a_folder_is_no_job_file(tmp_path):
    with pytest.raises(JobError, match="Is a directory"):
        load_job(tmp_path)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\x01", b"\x89PNG\r\n\x1a\n\x00", bytes(100)])
def test_a_binary_file_is_a_job_error(tmp_path, data):
    (tmp_path / "job.yaml").write_bytes(data)
    with pytest.raises(JobError, match=r"job\.yaml"):
        load_job(tmp_path / "job.yaml")


def test_a_byte_order_mark_and_dos_lines_are_read_over(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"\xef\xbb\xbf" + MEL.replace("\n", "\r\n").encode())
    assert load_job(tmp_path / "job.yaml").name == "a"


@pytest.mark.parametrize("address", ["~nobody-of-this-name/x", '"\\ud800"'])
def test_an_address_that_is_no_path_is_a_job_error(address):
    assert "is no path" in problems(MEL.replace("store: out", f"store: {address}"))[0]


# ---- --set -------------------------------------------------------------------------------------------------------


def test_set_overrides_an_option():
    assert parse_job(MEL, sets=["feature.bands=40"]).feature.bands == 40


def test_set_reaches_into_a_section_that_the_file_does_not_have():
    assert parse_job(MEL, sets=["scale.feature.workers=2"]).scale.feature.workers == 2


def test_set_takes_a_whole_section():
    assert parse_job(MEL, sets=["feature={kind: mfcc}"]).feature.kind == "mfcc"


def test_set_null_takes_a_section_away():
    assert parse_job(TOKENS, sets=["token=null"]).token is None


def test_the_last_set_of_an_option_counts():
    assert parse_job(MEL, sets=["feature.bands=40", "feature.bands=20"]).feature.bands == 20


def test_set_mends_what_the_file_has_wrong():
    assert parse_job(MEL.replace("kind: mel", "kind: mel, bands: many"), sets=["feature.bands=20"]).feature.bands == 20


def test_a_value_may_hold_an_equals_sign_and_dots():
    assert parse_job(MEL, sets=["source.path=/a.b/c=d"]).source.path == "/a.b/c=d"


UNREADABLE = ["foo", "", "=", "=1", "a..b=1", ".a=1", "a.=1", "feature.bands: 3", "feature.bands=[", "fit={codes: 3"]
UNREADABLE += ["fit={codes: 3, codes: 4}", "clip.min_s=@", "clip.min_s=!!python/none x", "name=\0", "fit=&a [*a"]


@pytest.mark.parametrize("one", UNREADABLE)
def test_a_set_that_cannot_be_read_is_quoted_as_it_was_written(one):
    [problem] = problems(MEL, one)[:1]
    assert problem.startswith(f"--set {one}: ")


@pytest.mark.parametrize("one", ["name.x=1", "source.kind.x=1", "source.path.y.z=1"])
def test_a_set_below_a_plain_value_says_what_has_no_options(one):
    [problem] = problems(MEL, one)
    assert problem.endswith("has no options")


def test_a_problem_of_a_set_does_not_blame_a_line_of_the_file():
    [problem] = problems(MEL.replace("kind: mel", "kind: mel, bands: 20"), "feature={kind: mel, bands: 3}")
    assert problem.startswith("job.yaml: feature.bands is 3")


def test_a_problem_of_the_file_is_found_beside_one_of_a_set():
    assert len(problems(MEL.replace("kind: files", "kind: file"), "feature.bands=1")) == 2


# ---- what fits together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MEL.replace("feature: {kind: mel}\n", ""), "the job makes nothing"),
        (TOKENS.replace("feature: {kind: mel}\n", ""), "token reads the column 'feature'"),
        (
            WINDOWS.replace("token: {kind: kmeans, codebook: cb}\n", "").replace("stride", "over: token, stride"),
            "token",
        ),
        (MEL + "keep: [token]\n", "keep: token is not made by this job; it makes feature"),
        (MEL.replace("source: {kind: files, path: x}\n", ""), "source is missing"),
        (MEL.replace("kind: files, path: x", "kind: dataset, from: d, column: feature"), "in the dataset already"),
        (MEL.replace("kind: files, path: x", "kind: files"), "source.path is missing from files"),
        (MEL.replace("store: out\n", ""), "store is missing"),
        (MEL.replace("name: a", "name: v12"), "name is 'v12', as the versions of a dataset are"),
        (
            TOKENS.replace("codebook: cb", "codebook: cb, codes: 64") + "fit: {codes: 32}\n",
            "token.codes is 64 and fit.codes is 32",
        ),
    ],
)
def test_steps_that_do_not_fit_together_are_an_error(text, said):
    assert said in "\n".join(problems(text))


@pytest.mark.parametrize("section", ["data", "model", "train", "pack"])
def test_one_section_of_a_training_tells_that_a_job_is_one(section):
    said = "\n".join(problems(f"name: a\nstore: y\n{section}: {{}}\n"))
    assert "is not an option of a job" not in said and "source is missing" not in said
    assert section == "data" or "data is missing" in said


def test_a_problem_of_a_section_without_kinds_names_the_section():
    [problem] = problems(MEL + "clip: {max: 2}\n")
    assert problem.partition(": ")[2].startswith("clip.max is not an option of clip; ")


def test_a_problem_within_a_list_names_the_item():
    text = "name: a\ndata: [{from: x}, {wait: 2}]\nmodel: {kind: samout}\nstore: y\n"
    assert [one.partition(": ")[2] for one in problems(text)] == [
        "data.1.from is missing from data.1",
        "data.1.wait is not an option of data.1; did you mean 'weight'?",
    ]


@pytest.mark.parametrize("name", ["label", "clip", "audio", "seconds", "error", "token", "path", "size", "text, text"])
@pytest.mark.parametrize("kind", ["manifest", "webdataset"])
def test_a_carried_column_may_not_take_the_name_of_another(kind, name):
    [problem] = problems(MEL.replace("kind: files", f"kind: {kind}, carry: [{name}]"))
    assert problem.startswith("job.yaml:2: source.carry is")


def test_paths_are_absolute_wherever_the_workers_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = parse_job(TOKENS)
    there = {"store": job.store, "path": job.source.path, "codebook": job.token.codebook}
    assert there == {"store": f"{tmp_path}/out", "path": f"{tmp_path}/x", "codebook": f"{tmp_path}/cb"}


def test_a_manifest_and_its_root_are_absolute_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = parse_job(MEL.replace("kind: files, path: x", "kind: manifest, path: m.csv, root: r")).source
    assert (source.path, source.root) == (f"{tmp_path}/m.csv", f"{tmp_path}/r")


def test_an_address_in_a_bucket_stays_as_it_is():
    job = parse_job(MEL.replace("path: x", "path: s3://b/x").replace("store: out", "store: s3://b/out"))
    assert (job.source.path, job.store) == ("s3://b/x", "s3://b/out")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (MEL, ("feature",)),
        (TOKENS, ("token",)),
        (WINDOWS, ("token", "window")),
        (WINDOWS.replace("token: {kind: kmeans, codebook: cb}\n", ""), ("window",)),
        (WINDOWS + "keep: [feature]\n", ("feature",)),
    ],
)
def test_the_last_product_is_kept_and_windows_never_without_their_tokens(text, kept):
    assert resolve(parse_job(text), how_to_fit=None).keep == kept


@pytest.mark.parametrize(("text", "over"), [(WINDOWS, "token"), (WINDOWS.replace(TOKENS, MEL), "feature")])
def test_windows_are_over_tokens_where_there_are_any(text, over):
    assert resolve(parse_job(text), how_to_fit=None).window.over == over


# ---- identity ----------------------------------------------------------------------------------------------------


def identity(text: str, *sets: str) -> str:
    return fingerprint(resolve(parse_job(text, sets=sets), how_to_fit=None))


MANIFEST = WINDOWS.replace("kind: files", "kind: manifest")
SHA = "ab" * 32


ELSEWHERE = ["name=b", "store=there", "source.path=y", "source.root=z", "token.codebook=elsewhere", "fit.codes=7"]
ELSEWHERE += ["scale.feature.workers=3", "scale.decode.cpus=0.1", "fit.seed=3"]
SAID_OTHERWISE = ["clip.max_s=30.0", "feature.bands=80", "window.over=token", "keep=[window, token, token]"]


@pytest.mark.parametrize("one", [*ELSEWHERE, *SAID_OTHERWISE])
def test_what_decides_no_number_is_not_in_the_fingerprint(one):
    assert identity(MANIFEST, one) == identity(MANIFEST)


def test_every_option_that_decides_a_number_is_in_the_fingerprint():
    decisive = ["clip.min_s=0.2", "clip.max_s=29", "clip.channel=0", "clip.channel=1", "feature.bands=81"]
    decisive += ["feature={kind: mfcc}", "token=null", f"token.sha256={SHA}", "token.codes=4", "window=null"]
    decisive += ["window.length_frames=11", "window.stride_frames=6", "window.tail=pad", "window.over=feature"]
    decisive += ["keep=[token]", "keep=[feature, token, window]", "source.label=speaker", "source.carry=[text]"]
    decisive += ["source={kind: files, path: x}", "source={kind: webdataset, path: x}"]
    found = {one: identity(MANIFEST, one) for one in ["name=a", *decisive]}
    assert len(set(found.values())) == len(found)


def test_a_new_version_of_a_choice_is_another_identity(monkeypatch):
    before = identity(MEL)
    monkeypatch.setattr("wavmill.pipeline.features.mel.Mel.version", 2)
    assert identity(MEL) != before


def test_a_class_named_in_full_is_the_kind_it_is():
    outside = MEL.replace("kind: mel", "kind: 'wavmill.pipeline.features.mel:Mel'")
    assert identity(outside) == identity(MEL)


# ---- codebooks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path):
    """A job with a codebook that fits it."""
    job = parse_job(TOKENS, sets=[f"token.codebook={tmp_path}/cb"])
    codebook_for(job, tmp_path / "cb")
    return job


def test_a_codebook_gives_its_size_and_hash_to_the_job(tokens, tmp_path):
    described = json.loads((tmp_path / "cb" / "codebook.json").read_text())
    token = resolve(tokens).token
    assert (token.codes, token.sha256) == (4, described["sha256"])


def test_a_copy_of_a_codebook_elsewhere_is_the_same_job(tokens, tmp_path):
    codebook_for(tokens, tmp_path / "copy")
    copied = parse_job(TOKENS, sets=[f"token.codebook={tmp_path}/copy"])
    assert fingerprint(resolve(copied)) == fingerprint(resolve(tokens))


def test_another_codebook_at_the_same_place_is_another_job(tokens, tmp_path):
    before = fingerprint(resolve(tokens))
    codebook_for(tokens, tmp_path / "cb", seed=1)
    assert fingerprint(resolve(tokens)) != before


@pytest.mark.parametrize(
    ("one", "said"),
    [("feature.bands=40", "feature.bands is 40 here, 80 there"), ("clip.channel=0", "channel is 0 here, 'mean' there")],
)
def test_a_codebook_learnt_on_other_features_is_refused_with_the_right_value(tokens, tmp_path, one, said):
    other = parse_job(TOKENS, sets=[f"token.codebook={tmp_path}/cb", one])
    with pytest.raises(JobError, match=f"learnt on other features: {re.escape(said)}"):
        resolve(other)


@pytest.mark.parametrize("one", ["token.codes=5", f"token.sha256={SHA}"])
def test_a_codebook_that_is_not_the_one_named_is_refused(tokens, tmp_path, one):
    name, _, value = one.partition("=")
    with pytest.raises(JobError, match=f"{name} is {value}; the codebook at .* has"):
        resolve(parse_job(TOKENS, sets=[f"token.codebook={tmp_path}/cb", one]))


def test_a_codebook_that_is_not_there_names_the_command_that_makes_it(tmp_path):
    job = parse_job(TOKENS, sets=[f"token.codebook={tmp_path}/none"])
    with pytest.raises(JobError, match=f"no codebook at {tmp_path}/none yet; learn it with: wavmill fit it"):
        resolve(job, "wavmill fit it")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": "x"}', '{"format": "wavmill-codebook-1"}'])
def test_a_file_that_is_no_codebook_is_a_job_error(tokens, tmp_path, text):
    (tmp_path / "cb" / "codebook.json").write_text(text)
    with pytest.raises(JobError, match="not a wavmill codebook"):
        resolve(tokens)


# ---- datasets as sources -----------------------------------------------------------------------------------------


@pytest.fixture
def from_dataset(tmp_path, tone, wav):
    """A job that goes on from published features."""
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "a.wav").write_bytes(wav(tone(0.3)))
    run_inline(words(tmp_path / "sound", tmp_path / "store"))
    text = MEL.replace("kind: files, path: x", f"kind: dataset, from: {tmp_path}/store/words, column: feature")
    return text.replace("feature: {kind: mel}", "window: {kind: fixed, length_frames: 3, stride_frames: 3}")


def test_a_job_is_tied_to_the_version_that_its_dataset_has(from_dataset, tmp_path):
    assert resolve(parse_job(from_dataset)).source.origin == f"{tmp_path}/store/words/v1"


def test_a_version_named_in_full_is_the_same_job(from_dataset):
    assert identity(from_dataset) == identity(from_dataset.replace("store/words,", "store/words/v1,"))


def test_a_column_that_the_dataset_does_not_have_is_refused_with_those_it_has(from_dataset):
    with pytest.raises(JobError, match="has no token; it has feature, window"):
        resolve(parse_job(from_dataset.replace("column: feature", "column: token")))


@pytest.mark.parametrize("address", ["words/v2", "nothing"])
def test_a_dataset_that_is_not_there_is_named(from_dataset, tmp_path, address):
    with pytest.raises(JobError, match=f"there is no dataset at {tmp_path}/store/{address}"):
        resolve(parse_job(from_dataset.replace("store/words,", f"store/{address},")))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": "something else"}'])
def test_a_file_that_is_no_dataset_is_a_job_error(from_dataset, tmp_path, text):
    (tmp_path / "store" / "words" / "v2").mkdir()
    (tmp_path / "store" / "words" / "v2" / "dataset.json").write_text(text)
    with pytest.raises(JobError, match="not a wavmill dataset"):
        resolve(parse_job(from_dataset))


def test_the_steps_of_a_job_are_listed_as_they_run():
    job = parse_job(WINDOWS + "check: {max_step_gap: 1}\nkeep: [token, window]\n")
    names = [(name, reads, makes.endswith(" (kept)")) for name, _, _, reads, makes, _ in steps_of(job)]
    assert names == [
        ("source", "", False),
        ("decode", "audio", False),
        ("check", "audio", False),
        ("feature", "audio", False),
        ("token", "feature", True),
        ("window", "auto", True),
    ]
    assert "check" not in [name for name, *_ in steps_of(parse_job(WINDOWS))]


# ---- schema, examples, templates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(schema())


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema())))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_accepts_every_example(validator, path):
    assert not list(validator.iter_errors(read_yaml(path.read_text(), path.name)[0]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_schema_accepts_every_template(validator, name):
    assert not list(validator.iter_errors(read_yaml(TEMPLATES[name], name)[0]))


@pytest.mark.parametrize(
    "wrong", ["nam: a", "clip: {max_s: 0}", "fit: {code: 3}", "keep: [tokens]", "window: {kind: x}"]
)
def test_the_schema_refuses_what_the_job_file_refuses(validator, wrong):
    assert list(validator.iter_errors(yaml.safe_load(TOKENS + wrong)))


@pytest.mark.parametrize(
    "wrong", ["nam: a", "train: {lrr: 1}", "pack: {layout: x}", "model: {kind: x}", "clip: {max_s: 2}"]
)
def test_the_schema_refuses_what_a_training_job_refuses(validator, wrong):
    job = {"name": "a", "data": [{"from": "x"}], "model": {"kind": "samout"}, "store": "y"}
    assert not list(validator.iter_errors(job))
    assert list(validator.iter_errors({**job, **yaml.safe_load(wrong)}))


def opening(text: str) -> str:
    return "\n".join(line for line in text.splitlines()[:6] if line.startswith("#"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_opens_with_the_command_that_runs_it(path):
    verbs = {command.callback.__name__ for command in app.registered_commands}
    found = re.findall(r"wavmill (\w+)(?: (\S+))?", opening(path.read_text()))
    assert found, "no command in the opening comment"
    assert all(verb in verbs and job in ("", f"examples/{path.name}") for verb, job in found)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_opens_with_the_command_that_runs_it(name):
    command = "wavmill train my-train.yaml" if name == "train" else "wavmill run my.yaml"
    assert command in opening(TEMPLATES[name])


def planned(text: str, where: str, corpus: Path, to: Path) -> int:
    """The objects that preview finds; what the job needs and is not beside it is put below ``to``."""
    given, _ = read_yaml(text, where)
    source, sets = given["source"], [f"store={to}/out"]
    if source["kind"] == "files":
        sets.append(f"source.path={corpus}")
    if source["kind"] == "webdataset":
        import tarfile

        with tarfile.open(to / "some.tar", "w") as tar:
            tar.add(next(corpus.rglob("*.flac")), "a.flac")
        sets.append(f"source.path={to}/*.tar")
    if source["kind"] == "dataset":
        run_inline(words(corpus, to / "store"))
        sets.append(f"source.from={to}/store/words")
    if given.get("feature", {}).get("kind") == "whisper":
        sets += [f"feature.model={tiny_whisper()}"]
    if given.get("feature", {}).get("kind") == "hubert":
        sets += [f"feature.model={tiny_hubert()}", "feature.layer=last"]
    if "token" in given:
        sets.append(f"token.codebook={to}/codebook")
    return preview(resolve(parse_job(text, where, sets), how_to_fit=None)).objects


@pytest.mark.parametrize("path", MAKING, ids=lambda path: path.stem)
def test_every_example_can_be_planned(path, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # what an example names is relative to the clone
    assert planned(path.read_text(), path.name, corpus, tmp_path) > 0


@pytest.mark.parametrize("name", sorted({*TEMPLATES} - {"train"}))
def test_every_template_can_be_planned(name, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert planned(TEMPLATES[name], name, corpus, tmp_path) == 27


# ---- anything at all ---------------------------------------------------------------------------------------------

NAMES = [*Job.model_fields, "kind", "path", "from", "origin", "column", "codebook", "codes", "sha256", "bands", "over"]
NAMES += [
    "model",
    "layer",
    "dtype",
    "normalize",
    "min_s",
    "max_s",
    "channel",
    "length_frames",
    "stride_frames",
    "tail",
    "decode",
    "workers",
    "cpus",
    "carry",
]
WORDS = [
    "files",
    "manifest",
    "webdataset",
    "dataset",
    "mel",
    "mfcc",
    "hubert",
    "last",
    "kmeans",
    "fixed",
    "auto",
    "token",
    "os:path",
]
WORDS += [
    "wavmill.pipeline.decoding.decode:Clip",
    "mean",
    "s3://",
    "~",
    "1e-3",
    "2024-13-45",
    "0b_",
    "<<",
    "!!int x",
    "&a",
    "*a",
]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=8), st.dates()
)
keys = st.one_of(st.sampled_from(NAMES), st.text(max_size=4), st.integers(), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=5)),
    max_leaves=12,
)
section = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)
steps = {
    "source": st.fixed_dictionaries({"kind": st.sampled_from(WORDS), "path": scalars}),
    "feature": st.fixed_dictionaries({"kind": st.sampled_from(WORDS)}, optional={"bands": scalars}),
    "token": st.fixed_dictionaries({"kind": st.just("kmeans"), "codebook": scalars}, optional={"codes": scalars}),
    "window": st.fixed_dictionaries({"kind": st.just("fixed"), "length_frames": scalars, "stride_frames": scalars}),
}
jobs = st.fixed_dictionaries(
    {}, optional={name: st.one_of(steps.get(name, values), section, values) for name in Job.model_fields}
)
pieces = st.one_of(
    st.sampled_from([*NAMES, *WORDS, ": ", "\n", "\n  ", "{", "}", "[", "]", ", ", "- ", "#", "'", '"']), keys
)


def is_a_job_or_a_job_error(text: str, *sets: str) -> bool:
    try:
        return isinstance(parse_job(text, "job.yaml", sets), Job)
    except JobError as error:
        return bool(str(error))


@settings(deadline=None, max_examples=100)
@given(jobs)
def test_whatever_a_mapping_holds_it_is_a_job_or_a_job_error(given_):
    assert is_a_job_or_a_job_error(yaml.safe_dump(given_, allow_unicode=True))


@settings(deadline=None, max_examples=100)
@given(st.lists(pieces, max_size=20))
def test_whatever_a_text_holds_it_is_a_job_or_a_job_error(given_):
    assert is_a_job_or_a_job_error(MEL + "".join(map(str, given_)))


@settings(deadline=None, max_examples=100)
@given(st.lists(keys.map(str), min_size=1, max_size=3), st.one_of(st.text(max_size=12), values.map(str)))
def test_whatever_is_set_it_is_a_job_or_a_job_error(path, value):
    assert is_a_job_or_a_job_error(WINDOWS, f"{'.'.join(path)}={value}")
