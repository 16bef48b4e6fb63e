"""Classes that a job file names come from beside it or from what is installed, and from nowhere else."""

import os
import sys
from pathlib import Path

import pytest

from wavmill.cluster import cli
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.load import load_job
from wavmill.pipeline.job.plugins import NO_PLUGINS
from wavmill.pipeline.job.submitted import JOB_CONFIG

CODE = """
from pathlib import Path
from wavmill.pipeline.features.mel import Mel

Path({mark!r}).write_text("imported")


class Own(Mel):
    pass
"""
JOB = "name: a\nsource: {{kind: files, path: {path}}}\nfeature: {{kind: '{module}:Own'}}\nstore: {store}\n"


@pytest.fixture
def folders(tmp_path, monkeypatch, tone, wav):
    """A job file in one folder, another folder to start in, sounds; sys.path and the environment as they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv(NO_PLUGINS, raising=False)
    for name in ("job", "elsewhere", "sounds"):
        (tmp_path / name).mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(wav(tone(0.3)))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def job_file(folders: Path, module: str, code_in: str) -> Path:
    """A job whose extractor is of a module in one of the folders; a file ``mark`` tells that it was imported."""
    (folders / code_in / f"{module}.py").write_text(CODE.format(mark=str(folders / "mark")))
    path = folders / "job" / "job.yaml"
    path.write_text(JOB.format(path=folders / "sounds", module=module, store=folders / "store"))
    return path


def wavmill(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wavmill", *arguments])
    monkeypatch.setenv("WAVMILL_WATCHED", "")  # in this process, whatever cluster is named
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_a_class_beside_the_job_file_is_found_wherever_the_command_starts(folders):
    job = load_job(job_file(folders, "beside_the_job", "job"))
    assert type(job.feature).__name__ == "Own"


@pytest.mark.parametrize("verb", ["plan", "show", "doctor", "run", "verify"])
def test_a_class_in_the_folder_that_a_command_starts_in_is_never_imported(folders, monkeypatch, capsys, verb):
    path = job_file(folders, f"in_cwd_{verb}", "elsewhere")
    on = ["--on", "127.0.0.1:1"] if verb == "doctor" else []  # nobody listens there, so no Ray is started
    assert wavmill(monkeypatch, verb, str(path), *on) == 2
    assert not (folders / "mark").exists()
    assert "cannot be imported" in "".join(capsys.readouterr())


@pytest.mark.parametrize("verb", ["plan", "show", "run"])
def test_without_plugins_nothing_of_a_job_file_is_imported(folders, monkeypatch, capsys, verb):
    path = job_file(folders, f"off_{verb}", "job")
    monkeypatch.setenv(NO_PLUGINS, "")
    assert wavmill(monkeypatch, "--no-plugins", verb, str(path)) == 2
    assert not (folders / "mark").exists()
    assert "plugins are off" in capsys.readouterr().err


def test_a_file_beside_the_job_does_not_take_the_place_of_a_library(folders):
    (folders / "job" / "wave.py").write_text("raise SystemExit('the job's own wave.py was imported')")
    load_job(job_file(folders, "beside_wave", "job"))
    sys.modules.pop("wave", None)
    import wave

    assert Path(wave.__file__).parent != folders / "job"


# ---- inside a submitted job --------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder as Ray unpacks what 'ray job submit --working-dir .' sent, to start in."""
    here = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv(JOB_CONFIG, "{}")
    return here


PLAIN = "name: a\nsource: {{kind: files, path: {path}}}\nfeature: {{kind: mel}}\nstore: {store}\n"


@pytest.mark.parametrize(
    ("path", "store", "named"),
    [
        ("/data", "out", "out"),
        ("sounds", "/shared/out", "sounds"),
        ("sounds", "out", "sounds, out"),
        ("s3://b/p", "./out", "./out"),
    ],
)
def test_a_submitted_job_refuses_folders_that_would_be_in_ray_s_cache(package, path, store, named):
    (package / "job.yaml").write_text(PLAIN.format(path=path, store=store))
    with pytest.raises(JobError) as error:
        load_job("job.yaml")
    assert str(error.value).startswith(f"{named}: relative folders") and "absolute" in str(error.value)


@pytest.mark.parametrize(("path", "store"), [("/data", "/shared/out"), ("s3://b/p", "s3://b/out"), ("~/data", "/out")])
def test_a_submitted_job_takes_folders_that_are_the_same_everywhere(package, path, store):
    (package / "job.yaml").write_text(PLAIN.format(path=path, store=store))
    assert load_job("job.yaml").store == store


def test_a_job_file_that_was_not_sent_says_how_to_send_it(package):
    with pytest.raises(JobError, match=r"ray job submit --working-dir \. -- wavmill run job\.yaml"):
        load_job("job.yaml")


def test_a_job_file_that_is_not_there_on_a_laptop_says_nothing_of_clusters(folders):
    assert JOB_CONFIG not in os.environ
    with pytest.raises(JobError) as error:
        load_job("job.yaml")
    assert "working-dir" not in str(error.value)
