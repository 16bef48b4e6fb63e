"""A private Ray is its owner's alone: no port beyond loopback, no folder open to others, and it still works."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from chaos import CHAOS
from places import ROOT

from wavmill.cluster import listening
from wavmill.cluster.listening import Listening, descendants, listening_below
from wavmill.cluster.private_ray import SEVERAL_NODES, on_loopback, session_parent

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="which sockets a process has: Linux's /proc")

STARTED = """
import json, os, sys
import ray  # by somebody else, before anything was set

os.environ.pop("RAY_ADDRESS", None)
from wavmill.cluster.connect import connect
from wavmill.cluster.doctor import private
from wavmill.cluster.listening import listening_below
from wavmill.cluster.private_ray import SEVERAL_NODES

connect("local")
import numpy as np
import ray.train
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

found = {"left": SEVERAL_NODES in os.environ or not ray._private.ray_constants.ENABLE_RAY_CLUSTER}
doubled = ray.data.range(64, override_num_blocks=4).map_batches(lambda batch: {"id": 2 * batch["id"]})
found["sum"] = int(doubled.sum("id"))

@ray.remote
class Sockets:
    def put(self, sockets):
        self.sockets = sockets

    def take(self):
        return self.sockets

sockets = Sockets.options(num_cpus=0).remote()

def work(given):
    import torch
    import torch.distributed as dist

    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == 2 and dist.get_backend() == "gloo"
    if dist.get_rank() == 0:
        with_gloo = [(one.program, str(one.address)) for one in listening_below(given["driver"]) if not one.loopback]
        ray.get(given["sockets"].put.remote(with_gloo))
    dist.barrier()

TorchTrainer(
    work,
    train_loop_config={"driver": os.getpid(), "sockets": sockets},
    scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
    run_config=ray.train.RunConfig(storage_path=sys.argv[1]),
).fit()
found["training"] = ray.get(sockets.take.remote())
at = listening_below(os.getpid())
found["programs"] = sorted({one.program for one in at})
found["beyond"] = [(one.program, str(one.address), one.port) for one in at if not one.loopback]
session = ray._private.worker._global_node.get_session_dir_path()
found["session"] = session
found["parent"] = oct(os.stat(session).st_mode & 0o777), oct(os.stat(os.path.join(session, "../..")).st_mode & 0o777)
found["doctor"] = [finding.good for finding in private()]
print("FOUND" + json.dumps(found))
"""


@LINUX
@pytest.mark.skipif(
    not CHAOS, reason="make chaos: a training on a Ray of its own; test_run.py looks at the Ray that it has"
)
def test_a_private_ray_listens_on_loopback_alone_has_its_session_in_a_closed_folder_and_trains(tmp_path):
    env = {name: value for name, value in os.environ.items() if name not in (SEVERAL_NODES, "RAY_ADDRESS")}
    env |= {"PYTHONPATH": str(ROOT), "RAY_TRAIN_V2_ENABLED": "1"}
    command = [sys.executable, "-c", STARTED, str(tmp_path)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert "FOUND" in ended.stdout, ended.stderr[-3000:]
    found = json.loads(ended.stdout.partition("FOUND")[2])
    assert {"gcs_server", "raylet"} <= set(found["programs"])  # so that they were looked at
    assert found["beyond"] == []
    assert found["parent"][1] == "0o700", found  # asked after workers have started, who open the session's own again
    assert found["doctor"] == [True]
    assert found["sum"] == 2 * sum(range(64))
    assert not found["left"]
    # torch's TCPStore, by which the workers of a training find one another, takes no address to listen at
    assert {program for program, _ in found["training"]} <= {"ray::RayTrainWorker"}


def test_sessions_lie_in_a_folder_that_only_this_user_enters_whatever_was_there(monkeypatch, tmp_path):
    base = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short enough for sockets
    try:
        monkeypatch.setenv("RAY_TMPDIR", str(base))
        usual = base / f"wavmill-{os.getuid()}"
        assert session_parent() == str(usual / "ray") and closed(usual)
        usual.chmod(0o777)
        assert session_parent() == str(usual / "ray") and closed(usual)
        usual.rmdir()
        (tmp_path / "elsewhere").mkdir()
        usual.symlink_to(tmp_path / "elsewhere")  # by another user, who was first
        other = Path(session_parent()).parent
        assert other.parent == base and other != usual and closed(other)
        assert session_parent() != str(other / "ray")  # one that may be known by now is not taken again
    finally:
        shutil.rmtree(base)


def test_a_folder_too_long_for_sockets_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    assert Path(session_parent()).parent.parent == Path("/tmp")


def closed(folder: Path) -> bool:
    return not folder.is_symlink() and stat.S_IMODE(folder.lstat().st_mode) == 0o700


def test_what_makes_ray_private_is_gone_before_this_process_joins_a_cluster(monkeypatch):
    from ray._private import ray_constants

    monkeypatch.delenv(SEVERAL_NODES, raising=False)
    before = ray_constants.ENABLE_RAY_CLUSTER
    with pytest.raises(RuntimeError), on_loopback():
        assert os.environ[SEVERAL_NODES] == "0" and not ray_constants.ENABLE_RAY_CLUSTER
        raise RuntimeError("Ray did not start")
    assert SEVERAL_NODES not in os.environ and before == ray_constants.ENABLE_RAY_CLUSTER


def test_the_user_may_ask_for_a_ray_that_other_machines_reach(monkeypatch):
    monkeypatch.setenv(SEVERAL_NODES, "1")
    with on_loopback():
        assert os.environ[SEVERAL_NODES] == "1"
    assert os.environ[SEVERAL_NODES] == "1"


@LINUX
@pytest.mark.parametrize(
    "family, address, loopback",
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "127.8.0.1", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::ffff:0.0.0.0", False),
    ],
)
def test_a_listening_socket_is_found_with_its_address(family, address, loopback):
    try:
        server = socket.socket(family)
        server.bind((address, 0))
    except OSError:
        pytest.skip(f"this machine has no {address}")
    with server:
        server.listen()
        port = server.getsockname()[1]
        [found] = [one for one in listening_below(os.getpid()) if one.port == port]
        assert (str(found.address), found.loopback) == (str(listening.ip_address(address)), loopback)
    assert not [one for one in listening_below(os.getpid()) if one.port == port]


@LINUX
def test_the_children_of_children_are_descendants():
    grandchild = "import time; print(__import__('os').getpid(), flush=True); time.sleep(60)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as started:
        pid = int(started.stdout.readline())
        found = {*descendants(os.getpid())}
        os.kill(pid, 9)
    assert {os.getpid(), started.pid, pid} <= found


@LINUX
def test_doctor_names_what_other_machines_reach(monkeypatch):
    from wavmill.cluster import doctor

    open_to_all = Listening(1, "raylet", listening.ip_address("::"), 7000)
    inside = Listening(1, "raylet", listening.ip_address("127.0.0.1"), 7001)
    monkeypatch.setenv(SEVERAL_NODES, "1")
    monkeypatch.setattr(doctor, "listening_below", lambda pid: [inside, open_to_all])
    [finding] = doctor.private()
    assert not finding.good
    assert "raylet at :: port 7000" in finding.said and f"unset {SEVERAL_NODES}" in finding.said
    assert "7001" not in finding.said
