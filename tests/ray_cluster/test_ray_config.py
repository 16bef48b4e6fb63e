"""ray_config.yaml is one that Ray takes, and says what its comments say."""

import copy
import os
import runpy
import sys
from types import SimpleNamespace

import jsonschema
import pytest
import yaml
from places import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

ENTRY = ROOT / "cluster" / "entry.py"
HOME = "/home/ubuntu"


@pytest.fixture
def config() -> dict:
    return yaml.safe_load((ROOT / "ray_config.yaml").read_text())


@pytest.fixture
def node_types(config) -> dict:
    return config["available_node_types"]


def is_accepted_by_ray(config: dict) -> bool:
    """The two checks of `ray up` that come before it asks AWS anything."""
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError:
        return False
    return True


def test_ray_accepts_the_file(config):
    assert is_accepted_by_ray(config)


@pytest.mark.parametrize("typo", ["idle_timeout_minute", "setup_command", "file_mount"])
def test_ray_refuses_a_key_with_a_typo(config, typo):
    assert not is_accepted_by_ray(config | {typo: config[f"{typo}s"]})


def test_ray_refuses_a_typo_in_a_node_type(config):
    config["available_node_types"]["gpu"]["max_worker"] = 8
    assert not is_accepted_by_ray(config)


def test_the_clone_is_mounted_and_installed_with_the_pins(config):
    assert config["file_mounts"][f"{HOME}/wavmill"] == "."
    [install] = [command for command in config["setup_commands"] if "pip install" in command]
    assert install.startswith("cd ~/wavmill && ")
    assert install.endswith("pip install -q -e . -c constraints.txt")


def test_history_environment_and_results_stay_on_the_laptop(config):
    assert {".git", ".venv", "out"} <= set(config["rsync_exclude"])
    assert config["rsync_filter"] == [".gitignore"]


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_ray_start_demands_the_token(config, role):
    starts = [command for command in config[f"{role}_start_ray_commands"] if "ray start" in command]
    assert len(starts) == 1
    assert starts[0].index("export RAY_AUTH_MODE=token;") < starts[0].index("ray start")


def test_the_token_reaches_every_node_and_only_its_owner_may_read_it(config):
    assert config["file_mounts"][f"{HOME}/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_the_dashboard_listens_on_the_head_alone(config):
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_the_head_has_no_gpu_and_takes_no_tasks(config, node_types):
    assert node_types[config["head_node_type"]]["resources"] == {"CPU": 0}


def test_gpu_workers_exist_and_none_runs_before_it_is_needed(node_types):
    gpu = [spec for spec in node_types.values() if spec["resources"].get("GPU", 0)]
    assert gpu
    assert all(spec["min_workers"] == 0 < spec["max_workers"] for spec in gpu)


def test_some_cpus_are_always_there_for_a_run_to_size_itself_by(node_types):
    assert sum(spec["resources"]["CPU"] * spec.get("min_workers", 0) for spec in node_types.values()) > 0


def test_the_total_admits_every_worker_of_every_type(config, node_types):
    assert config["max_workers"] == sum(spec.get("max_workers", 0) for spec in node_types.values())


def test_every_node_has_an_instance_profile(node_types):
    assert all(spec["node_config"]["IamInstanceProfile"]["Name"] for spec in node_types.values())


@pytest.fixture
def verbs(monkeypatch) -> list[tuple[list[str], str | None]]:
    """Stands in for wavmill.cluster.cli: every call of main, as its arguments and where it would find Ray."""
    calls: list[tuple[list[str], str | None]] = []
    monkeypatch.setattr(sys, "argv", ["entry.py", "run", "job.yaml"])
    monkeypatch.setenv("RAY_ADDRESS", "to be deleted")  # so that what the entry sets is undone as well
    monkeypatch.delenv("RAY_ADDRESS")

    def main() -> None:
        calls.append((sys.argv[1:], os.environ.get("RAY_ADDRESS")))

    monkeypatch.setitem(sys.modules, "wavmill.cluster.cli", SimpleNamespace(main=main))
    return calls


def test_the_entry_passes_its_arguments_to_the_verbs_and_joins_the_heads_own_cluster(verbs):
    runpy.run_path(str(ENTRY), run_name="__main__")
    assert verbs == [(["run", "job.yaml"], "auto")]


def test_importing_the_entry_runs_nothing(verbs):
    runpy.run_path(str(ENTRY), run_name="wavmill.cluster.entry")
    assert verbs == []


def test_the_entry_is_tiny():
    assert len([line for line in ENTRY.read_text().splitlines() if line.strip()]) <= 6
