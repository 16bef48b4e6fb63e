"""The verbs: exit codes, and one short message where something is wrong. Nothing here starts Ray."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from checkpoints import tiny_hubert, tiny_whisper
from inline import mill, run_inline, words
from s3_server import bucket_on
from typer.testing import CliRunner

from wavmill.cluster import cli, doctor
from wavmill.cluster.printing import command, size
from wavmill.pipeline.errors import JobError, NotAllowed, Stopped, TooManyRejects
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import load_job
from wavmill.pipeline.job.templates import TEMPLATES
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.store import open_store
from wavmill.pipeline.workspace import Workspace

JOB = """\
name: a
source: {{kind: files, path: "{path}"}}
feature: {{kind: mfcc}}
store: "{store}"
"""
TOKEN = "token={kind: kmeans, codebook: nowhere}"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def wavmill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process, as its entry point does. A traceback fails the test."""

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["wavmill", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Answer(stop.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def sounds(tmp_path: Path, tone: Any, wav: Any) -> Path:
    """Three short sounds and a broken one."""
    (tmp_path / "sounds").mkdir()
    for number in range(3):
        (tmp_path / "sounds" / f"{number}.wav").write_bytes(wav(tone(0.3, seed=number)))
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"")
    return tmp_path / "sounds"


@pytest.fixture
def job(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job file in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB.format(path=sounds, store=tmp_path / "store"))
    return "job.yaml"


# ---- what works --------------------------------------------------------------------------------------------------


def test_plan_says_what_a_job_would_do(wavmill, job, tmp_path):
    answer = wavmill("plan", job)
    assert (answer.code, answer.err) == (0, "")
    for said in ("corpus    4 sound files", f"{tmp_path}/store/a/v1", "mfcc", "16,000 Hz", "wavmill run job.yaml"):
        assert said in answer.out


def test_plan_writes_nothing(wavmill, job, tmp_path):
    wavmill("plan", job)
    assert not (tmp_path / "store").exists()


def test_plan_says_how_many_files_it_leaves_out(wavmill, job, sounds):
    for name in ("a.txt", "b.txt", ".hidden.wav"):
        (sounds / name).write_text("")
    assert "left out  3 files: 2 .txt, 1 hidden" in wavmill("plan", job).out


def test_plan_says_which_files_of_a_manifest_are_not_there_and_why(wavmill, job, sounds):
    (sounds / "m.csv").write_text("path, label\n0.WAV,x\n 1.wav,y\n2.wav,z\n")
    answer = wavmill("plan", job, "--set", f"source={{kind: manifest, path: {sounds}/m.csv}}")
    assert answer.code == 0 and "corpus    3 rows" in answer.out and "not there 2 of 3" in answer.out
    for said in (
        "'0.WAV': there is no such file; there is '0.wav'",
        "' 1.wav': there is no such file; there is '1.wav'",
    ):
        assert said in answer.out


def test_a_manifest_in_another_encoding_is_a_short_error_that_says_how_to_read_it(wavmill, job, sounds):
    (sounds / "m.csv").write_bytes("path,label\n0.wav,é\n".encode("latin-1"))
    said = "row 1 is not UTF-8; save it as UTF-8 or say encoding:"
    assert is_short(wavmill("plan", job, "--set", f"source={{kind: manifest, path: {sounds}/m.csv}}"), 2, said)


def test_plan_says_how_to_learn_a_codebook_that_is_not_there_yet(wavmill, job, tmp_path):
    answer = wavmill("plan", job, "--set", TOKEN)
    assert answer.code == 0
    assert f"there is none at {tmp_path}/nowhere yet:  wavmill fit job.yaml" in answer.out


@pytest.mark.parametrize("sets", [[], ["--set", TOKEN], ["--set", "name=b", "--set", "keep=[feature]"]])
def test_the_command_that_plan_ends_with_makes_what_was_planned(wavmill, job, sets):
    answer = wavmill("plan", job, *sets)
    last = shlex.split(answer.out[answer.out.index("wavmill ") :])
    assert last[2:] == [job, *sets]


def test_a_job_file_of_any_name_comes_out_as_it_was(wavmill, job, tmp_path):
    (tmp_path / "[bold] it's.yaml").write_text((tmp_path / job).read_text())
    answer = wavmill("plan", "[bold] it's.yaml")
    assert shlex.split(answer.out[answer.out.index("wavmill ") :]) == ["wavmill", "run", "[bold] it's.yaml"]


@pytest.mark.parametrize("sets", [[], ["a=1"], ["window={kind: fixed, x: 'y'}", "source.path=/a b/$HOME/`c`"]])
def test_a_command_can_be_copied_into_a_shell(sets):
    words_ = shlex.split(command("run", "some job.yaml", sets))
    assert words_ == ["wavmill", "run", "some job.yaml", *(word for one in sets for word in ("--set", one))]


@pytest.mark.parametrize("kind", sorted({*TEMPLATES} - {"train"}))
def test_a_template_can_be_planned_when_it_has_a_path(wavmill, sounds, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(wavmill("new", kind).out)
    models = {
        "units": [f"feature.model={tiny_hubert()}", "feature.layer=last"],
        "talking": [f"feature.model={tiny_whisper()}"],
    }
    net = [word for one in models.get(kind, []) for word in ("--set", one)]
    assert wavmill("plan", "my.yaml", "--set", f"source.path={sounds}", *net).code == 0


def test_a_template_without_a_path_says_what_to_change(wavmill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(wavmill("new", "tokens").out)
    answer = wavmill("plan", "my.yaml")
    assert (answer.code, answer.err) == (2, f"wavmill: source.path: {tmp_path}/path/to/sound does not exist\n")


def test_new_lists_the_kinds_there_are(wavmill):
    assert [line.split()[0] for line in wavmill("new").out.splitlines()] == list(TEMPLATES)


def test_schema_prints_json_for_editors(wavmill):
    assert json.loads(wavmill("schema").out)["$defs"]["Job"]["properties"]["source"]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1e6, 3.43e6, 1e15])
def test_a_size_is_three_digits_and_a_unit(count):
    number, unit = size(count).split()
    assert unit in ("B", "kB", "MB", "GB", "TB") and 0 <= float(number.replace(",", "")) <= 1000


@pytest.fixture
def dataset(sounds: Path, tmp_path: Path) -> str:
    """The address of a dataset of the sounds; ``words.yaml`` is its job."""
    job = words(sounds, tmp_path / "store", "feature={kind: mfcc}")
    run_inline(job)
    (tmp_path / "words.yaml").write_text(JOB.format(path=sounds, store=job.store).replace("name: a", "name: words"))
    return job.address


@pytest.mark.parametrize("known", [0, 1])
def test_a_run_counts_as_done_before_only_shards_of_its_own_corpus(wavmill, job, tmp_path, sounds, monkeypatch, known):
    """Another corpus with the same recipe has records of the same identity in the store."""
    other = tmp_path / "other"
    other.mkdir()
    for path in sounds.iterdir():
        shutil.copy(path, other / f"other-{path.name}")
    run_inline(resolve(load_job(job, [f"source.path={other}"])))
    mine = resolve(load_job(job, ["name=second"]))
    mill(mine, make_plans(Workspace(mine)), most=known)
    told = wavmill("run", job, "--set", "name=second", "--max-rejects", "1")
    assert (told.code, f"{known} were done before" in told.out) == (0, bool(known)), told.out
    assert "done before" not in told.out or known


def test_show_ends_with_lines_that_read_the_dataset(wavmill, dataset):
    out = wavmill("show", dataset).out
    code = [line.removeprefix("read it").strip() for line in out.splitlines() if "pyarrow" in line]
    found: dict[str, Any] = {}
    exec("\n".join(code), found)
    assert found["table"].num_rows == 3


@pytest.mark.parametrize("what", ["{dataset}", "{dataset}/v1", "{dataset}/", "{folder}/words.yaml"])
def test_show_takes_an_address_a_version_or_a_job(wavmill, dataset, tmp_path, what):
    answer = wavmill("show", what.format(dataset=dataset, folder=tmp_path))
    assert (answer.code, answer.out.count("4 clips")) == (0, 1)


def test_show_json_is_dataset_json(wavmill, dataset):
    printed = json.loads(wavmill("show", dataset, "--json").out)
    assert printed == json.loads(Path(dataset, "v1", "dataset.json").read_text()) | {"address": f"{dataset}/v1"}


def test_show_rejects_lists_what_failed_and_why(wavmill, dataset):
    assert wavmill("show", dataset, "--rejects").out.splitlines()[1].split() == [
        "broken.wav", "decode", "empty", "zero", "bytes"
    ]  # fmt: skip


# ---- what is wrong -----------------------------------------------------------------------------------------------


def is_short(answer: Answer, code: int, *said: str) -> bool:
    """One message on the right stream with the right code."""
    assert (answer.code, answer.out) == (code, "")
    for words_ in said:
        assert words_ in answer.err
    return len(answer.err) < 400 and answer.err.count("\n") <= 2 and answer.err.startswith("wavmill: ")


def test_a_job_file_that_is_not_there_is_a_wrong_job(wavmill):
    assert is_short(wavmill("plan", "nothing.yaml"), 2, "cannot read the job file nothing.yaml")


def test_a_wrong_job_is_said_with_its_line(wavmill, job, tmp_path):
    (tmp_path / job).write_text((tmp_path / job).read_text().replace("kind: mfcc", "kind: mfc"))
    assert is_short(wavmill("plan", job), 2, "job.yaml:3: feature.kind 'mfc' is not known; did you mean 'mfcc'?")


@pytest.mark.parametrize("verb", ["plan", "run", "fit"])
def test_a_corpus_that_is_not_there_is_a_wrong_job(wavmill, job, tmp_path, verb):
    sets = ["--set", "source.path=nowhere"] + (["--set", TOKEN] if verb == "fit" else [])
    assert is_short(wavmill(verb, job, *sets), 2, f"source.path: {tmp_path}/nowhere does not exist")


def test_an_empty_folder_is_a_wrong_job(wavmill, job, tmp_path):
    (tmp_path / "empty").mkdir()
    assert is_short(wavmill("plan", job, "--set", "source.path=empty"), 2, "empty is empty")


def test_a_folder_without_sound_is_a_wrong_job(wavmill, job, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("")
    assert is_short(wavmill("plan", job, "--set", "source.path=texts"), 2, "holds no sound files, only 1 .txt")


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_store_that_cannot_be_one_is_a_wrong_job(wavmill, job, verb):
    assert is_short(wavmill(verb, job, "--set", "store=job.yaml/store"), 2, "job.yaml/store: Not a directory")


def test_a_store_where_nothing_can_be_made_is_an_error_with_a_message(wavmill, job):
    assert wavmill("run", job, "--set", "store=/proc/store").code in (2, 75, 77)


def test_a_store_where_nothing_may_be_made_is_not_allowed(wavmill, job):
    answer = wavmill("run", job, "--set", "store=/sys/store")
    assert is_short(answer, 77, "/sys/store")


def test_a_codebook_that_is_not_there_names_the_fit_with_every_option(wavmill, job, tmp_path):
    sets = ["--set", TOKEN, "--set", "name=b"]
    answer = wavmill("run", job, *sets)
    assert is_short(answer, 2, f"there is no codebook at {tmp_path}/nowhere yet")
    assert shlex.split(answer.err.partition("learn it with: ")[2]) == ["wavmill", "fit", job, *sets]


@pytest.mark.parametrize("verb", ["plan", "run", "fit"])
def test_a_codebook_that_is_a_file_says_what_it_should_be(wavmill, job, tmp_path, verb):
    (tmp_path / "km.bin").write_bytes(b"joblib")
    answer = wavmill(verb, job, "--set", f"token={{kind: kmeans, codebook: {tmp_path}/km.bin}}")
    assert is_short(answer, 2, f"token.codebook: {tmp_path}/km.bin is a file", "a folder made by 'wavmill fit'")


def test_a_fit_without_a_token_is_a_wrong_job(wavmill, job):
    assert is_short(wavmill("fit", job), 2, "there is no codebook to fit")


@pytest.mark.parametrize("arguments", [["run"], ["fit", "--set", TOKEN]])
def test_ray_s_client_addresses_are_refused_with_what_to_give(wavmill, job, arguments):
    answer = wavmill(*arguments, job, "--on", "ray://head:10001")
    assert is_short(answer, 2, "ray://head:10001", "host:6379")


def test_ray_s_client_addresses_are_refused_in_the_environment_too(wavmill, job, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert is_short(wavmill("run", job), 2, "ray://head:10001")


def test_a_fit_that_cannot_start_leaves_nothing_behind(wavmill, job, tmp_path):
    wavmill("fit", job, "--set", TOKEN, "--on", "ray://head:10001")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize("what", ["nowhere", "store/none", "s3:///x", "http://host/x"])
def test_a_dataset_that_is_not_there_is_a_wrong_job(wavmill, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    assert is_short(wavmill("show", what), 2, what)


def test_a_template_that_is_not_there_is_said_with_those_that_are(wavmill):
    assert is_short(wavmill("new", "video"), 2, "there is no template 'video'; there are tokens")


@pytest.mark.parametrize(
    "arguments",
    [
        ["mill"],
        ["plan"],
        ["plan", "a", "b"],
        ["plan", "a", "--fast"],
        ["run", "a", "--max-rejects", "2"],
        ["plan", "--set"],
    ],
)
def test_a_command_that_is_no_command_is_a_usage_error(wavmill, arguments):
    answer = wavmill(*arguments)
    assert answer.code == 2 and "Error" in answer.err and len(answer.err) < 400


def test_no_arguments_at_all_show_the_verbs(wavmill):
    answer = wavmill()
    assert all(verb in answer.out + answer.err for verb in ("demo", "new", "plan", "fit", "run", "show", "doctor"))


@pytest.mark.parametrize(
    ("error", "code"),
    [(JobError, 2), (TooManyRejects, 3), (Stopped, 75), (NotAllowed, 77)],
    ids=lambda value: str(value),
)
def test_an_error_for_people_is_its_message_and_its_exit_code(wavmill, monkeypatch, error, code):
    def load(*_: Any) -> None:
        raise error("the [message], as it is")

    monkeypatch.setattr(cli, "load", load)
    assert wavmill("plan", "job.yaml") == (code, "", "wavmill: the [message], as it is\n")


def test_a_bug_is_a_traceback(monkeypatch):
    monkeypatch.setattr(cli, "load", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["wavmill", "plan", "job.yaml"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_control_c_says_that_the_same_command_goes_on(wavmill, monkeypatch):
    def load(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load", load)
    assert wavmill("plan", "job.yaml") == (130, "", "stopped; the same command goes on from here\n")


# ---- buckets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["source.path", "store"])
def test_a_bucket_that_is_not_there_is_a_wrong_job(wavmill, job, moto, monkeypatch, option):
    bucket_on(moto, monkeypatch)
    answer = wavmill("plan", job, "--set", f"{option}=s3://no-such-bucket/x")
    assert is_short(answer, 2, "s3://no-such-bucket/x", "the bucket does not exist")


def test_an_empty_prefix_is_a_wrong_job(wavmill, job, moto, monkeypatch):
    bucket = bucket_on(moto, monkeypatch)
    assert is_short(wavmill("plan", job, "--set", f"source.path={bucket}"), 2, f"{bucket} is empty")


@pytest.mark.parametrize("option", ["source.path", "store"])
def test_wrong_credentials_are_not_allowed(wavmill, job, swift, monkeypatch, option):
    bucket = bucket_on(swift, monkeypatch)
    bucket_on_wrong = replace(swift, secret_key="wrong").env()
    for name, value in bucket_on_wrong.items():
        monkeypatch.setenv(name, value)
    assert is_short(wavmill("plan", job, "--set", f"{option}={bucket}"), 77, bucket.rsplit("/", 1)[0], "refused")


def test_no_credentials_are_not_allowed_and_say_what_to_set(wavmill, job, moto, monkeypatch, tmp_path):
    bucket = bucket_on(moto, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert is_short(wavmill("plan", job, "--set", f"store={bucket}"), 77, "AWS_PROFILE")


def test_a_bucket_can_be_planned_from_and_to(wavmill, job, moto, monkeypatch, sounds):
    bucket = bucket_on(moto, monkeypatch)
    for path in sounds.iterdir():
        open_store(f"{bucket}/in").put(path.name, path.read_bytes())
    answer = wavmill("plan", job, "--set", f"source.path={bucket}/in", "--set", f"store={bucket}/out")
    assert answer.code == 0 and "4 sound files" in answer.out


# ---- doctor ------------------------------------------------------------------------------------------------------


def test_a_store_that_keeps_its_promises_is_healthy(any_store):
    assert all(finding.good for finding in doctor.store(open_store(any_store)))


def test_the_doctor_leaves_nothing_in_a_store(any_store):
    list(doctor.store(open_store(any_store)))
    assert not list(open_store(any_store).list())


def test_a_store_that_lets_two_writers_win_is_unhealthy(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    monkeypatch.setattr(type(store), "create_once", lambda self, key, data: (self.put(key, data), data)[1])
    assert not all(finding.good for finding in doctor.store(store))


def test_the_decoders_of_this_machine_are_healthy():
    assert all(finding.good for finding in doctor.decoders())


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o644, False), (0o640, False)])
def test_a_token_that_others_can_read_is_unhealthy(tmp_path, monkeypatch, mode, good):
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert [finding.good for finding in doctor.token()] == [good]


def made_ray(cpus: float) -> Any:
    return SimpleNamespace(cluster_resources=lambda: {"CPU": cpus}, nodes=lambda: [{"Alive": True}, {"Alive": False}])


def test_what_is_wrong_with_a_job_is_a_finding_and_not_the_end(tmp_path):
    findings = list(doctor.examine(str(tmp_path / "nothing.yaml"), lambda: made_ray(2.0)))
    assert [finding.good for finding in findings if finding.name == "job"] == [False]
    assert [finding.said for finding in findings if finding.name == "ray"] == ["1 node, 2 CPUs, 0 GPUs, 0.0 GiB"]


def test_a_healthy_job_and_its_store_are_found_healthy(job, tmp_path):
    findings = list(doctor.examine(str(tmp_path / job), lambda: made_ray(2.0)))
    assert [finding.good for finding in findings if finding.name in ("job", "store")] == [True] * 4


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 2)])
def test_the_doctor_s_exit_code_says_whether_all_is_well(wavmill, monkeypatch, good, code):
    finding = doctor.Finding(good, "store", "[said]")
    monkeypatch.setattr(doctor, "examine", lambda *_: iter([finding]))
    answer = wavmill("doctor")
    assert (answer.code, answer.out.split()) == (code, ["ok" if good else "bad", "store", "[said]"])


# ---- quick answers -----------------------------------------------------------------------------------------------

HEAVY = {"ray", "librosa", "sklearn", "scipy", "av", "torch", "boto3", "numba"}
LOADED = """
import sys
from wavmill.cluster.cli import main
sys.argv = ["wavmill", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    print(stop.code, *(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "job.yaml", "--set", TOKEN]], ids=["help", "plan"])
def test_help_and_plan_load_no_heavy_library(job, sounds, tmp_path, arguments):
    (sounds / "broken.wav").unlink()  # to tell that it is no sound takes FFmpeg
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], cwd=tmp_path, capture_output=True, text=True)
    code, *modules = done.stderr.split()
    assert code == "0", done.stderr
    assert HEAVY & {*modules} == set()


def test_every_verb_has_help_that_fits_on_a_line():
    for verb in cli.app.registered_commands:
        asked = CliRunner().invoke(cli.app, [verb.callback.__name__, "--help"])
        assert asked.exit_code == 0 and verb.callback.__doc__.endswith((".", ".\n"))
