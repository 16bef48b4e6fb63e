"""Everything is imported as wavmill: from a clone, from a wheel beside folders of the same names, and on Ray."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT

import wavmill

FOLDERS = ("cluster", "model", "pipeline")
JOB = "name: words\nsource: {{kind: files, path: {path}}}\nfeature: {{kind: mfcc}}\nstore: out\n"
PROGRAM = """
import wavmill, model, pipeline, cluster
assert model.MINE and pipeline.MINE and cluster.MINE, "these are the user's own"
print(wavmill.__file__)
made = wavmill.run("job.yaml")
dataset = wavmill.open("out/words")
assert dataset.fingerprint == made.fingerprint and dataset.address == made.address
print(dataset.table(["clip", "feature"]).num_rows, dataset.table().num_columns)
"""


def clone(to: Path) -> Path:
    """The files that make wavmill, links as links."""
    for name in ("cluster", "model", "pipeline", "wavmill"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".rayignore"):
        shutil.copy(ROOT / name, to / name)
    return to


def ran(*command: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PYTHONPATH": str(path)} if path is not None else {}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture
def job(tmp_path, tone, wav):
    """A folder with a job, two sounds, and packages of the user's own with the names of ours."""
    here = tmp_path / "here"
    (here / "sounds").mkdir(parents=True)
    for number in range(2):
        (here / "sounds" / f"{number}.wav").write_bytes(wav(tone(0.4, seed=number)))
    (here / "job.yaml").write_text(JOB.format(path=here / "sounds"))
    for name in FOLDERS:
        (here / name).mkdir()
        (here / name / "__init__.py").write_text("MINE = True\n")
    return here


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_s_plain_name_is_refused_with_the_right_one(name):
    ended = ran("-c", f"import {name}", cwd=ROOT)
    assert ended.returncode == 1 and ended.stderr.endswith(f"ImportError: import wavmill.{name}, not {name}\n")


def test_every_name_of_the_surface_is_there_and_documented():
    for name in set(wavmill.WHERE) - {"__version__"}:
        assert getattr(wavmill, name).__doc__ and name in dir(wavmill)
    assert wavmill.__version__
    with pytest.raises(AttributeError, match="no attribute 'opne'; it has"):
        wavmill.opne  # noqa: B018


def test_the_examples_are_found_from_a_clone_and_not_from_a_wheel():
    from wavmill.cluster.cli import EXAMPLES

    assert EXAMPLES.samefile(ROOT / "examples")


def test_importing_it_loads_nothing():
    asked = "import sys, wavmill; sys.exit(str([name for name in sys.modules if name.startswith('wavmill.')]))"
    assert ran("-c", asked, cwd=ROOT).stderr.strip() == "[]"


def test_the_wheel_runs_a_job_beside_folders_of_the_same_names(tmp_path, job):
    source = clone(tmp_path / "source")
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    built = ran("-c", build, str(tmp_path / "dist"), cwd=source)
    assert built.returncode == 0, built.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert {name.partition("/")[0] for name in packed.namelist() if ".dist-info" not in name} == {"wavmill"}
        packed.extractall(tmp_path / "installed")
    files = sorted(path.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py"))
    assert not [path for path in files if not (tmp_path / "installed" / "wavmill" / path).is_file()]
    ended = ran("-c", PROGRAM, cwd=job, path=tmp_path / "installed")
    assert ended.returncode == 0, ended.stderr
    where, rows = ended.stdout.splitlines()[0], ended.stdout.splitlines()[-1]
    assert where.startswith(str(tmp_path / "installed")) and rows.split()[0] == "2"
    shown = ran("-m", "wavmill.cluster.cli", "show", "out/words", "--json", cwd=job, path=tmp_path / "installed")
    assert json.loads(shown.stdout)["counts"]["done"] == 2


def test_a_clone_whose_links_are_text_files_says_what_to_do(tmp_path):
    source = clone(tmp_path / "source")
    for name in FOLDERS:
        (source / "wavmill" / name).unlink()
        (source / "wavmill" / name).write_text(f"../{name}")
    ended = ran("-c", "import wavmill", cwd=tmp_path, path=source)
    assert ended.returncode == 1 and "git config core.symlinks true" in ended.stderr


def test_ray_packs_a_clone_once_and_it_works_there(tmp_path, job):
    from ray._private.runtime_env.packaging import create_package

    source = clone(tmp_path / "source")
    create_package(str(source), tmp_path / "package.zip", include_gitignore=True, excludes=[])
    with zipfile.ZipFile(tmp_path / "package.zip") as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "there")
    assert [name for name in names if name.endswith("/contracts.py")] == ["wavmill/pipeline/contracts.py"]
    ended = ran("-c", PROGRAM, cwd=job, path=tmp_path / "there")
    assert ended.returncode == 0 and ended.stdout.startswith(str(tmp_path / "there")), ended.stderr
