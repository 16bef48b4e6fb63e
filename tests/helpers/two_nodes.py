"""A Ray cluster of two nodes on one machine: raylets with resources of their own, one in a mount namespace.

The second node does not see what lies in ``head_only``, may not write to ``read_only``, and has in ``partial`` other
files than the head has there: those in ``partial_on_second``.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from places import HELPERS, ROOT
from raykills import kill_tree

RAY = str(Path(sys.executable).parent / "ray")
READY_S = 90.0
FOLDERS = ("shared", "head_only", "read_only", "partial", "partial_on_second", "empty")


def namespaces() -> list[str]:
    """The command that starts another one in a mount namespace of its own; empty where the kernel does not let us."""
    for command in (["unshare", "-m"], ["unshare", "-Urm"]):
        if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    return []


@dataclass
class TwoNodes:
    """A running cluster, and the folder that holds all of FOLDERS."""

    root: Path
    address: str
    env: dict[str, str]
    temp: str
    second_env: dict[str, str]
    head: subprocess.Popen
    second: subprocess.Popen | None = None
    driver: subprocess.Popen | None = None

    def start_second(self) -> None:
        """Start the second node; without a namespace of its own where the kernel does not let us."""
        root = shlex.quote(str(self.root))
        mounts = (
            f"mount --bind {root}/empty {root}/head_only && mount --bind {root}/partial_on_second {root}/partial"
            f" && mount --bind {root}/read_only {root}/read_only && mount -o remount,bind,ro {root}/read_only"
        )
        start = [RAY, "start", "--address", self.address, "--block", "--num-cpus=1", "--resources", '{"second": 1}']
        start += ["--object-store-memory=100000000"]
        apart = namespaces()
        command = [*apart, "sh", "-c", f"{mounts} && exec {shlex.join(start)}"] if apart else start
        self.second = started(command, self.env | self.second_env)
        self.wait_for(2)

    def kill_second(self) -> None:
        assert self.second is not None
        kill_tree(self.second.pid)
        self.second.wait()
        self.second = None

    def wait_for(self, nodes: int) -> None:
        """Until the head counts so many live nodes."""
        code = (
            "import sys, time; from ray._raylet import GcsClient\n"
            "client, end = GcsClient(address=sys.argv[1]), time.monotonic() + float(sys.argv[3])\n"
            "while sum(one.state == 0 for one in client.get_all_node_info().values()) != int(sys.argv[2]):\n"
            "    time.sleep(0.1)\n"
            "    assert time.monotonic() < end\n"
        )
        asked = [sys.executable, "-c", code, self.address, str(nodes), str(READY_S)]
        subprocess.run(asked, env=self.env, check=True, capture_output=True)

    def verb(self, *argv: Any) -> tuple[int, str]:
        """wavmill with these arguments, in a process that stays connected: the exit code, and what was said."""
        if self.driver is None:
            self.driver = subprocess.Popen(
                [sys.executable, str(HELPERS / "verbs.py")],
                env={**self.env, "RAY_ADDRESS": self.address},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.root,
            )
        assert self.driver.stdin is not None and self.driver.stdout is not None
        print(json.dumps([str(word) for word in argv]), file=self.driver.stdin, flush=True)
        for line in self.driver.stdout:
            if line.startswith('{"code"'):
                answer = json.loads(line)
                return answer["code"], answer["said"]
        raise AssertionError(f"wavmill {argv} ended the process: {self.driver.wait()}")


def environment(home: str) -> dict[str, str]:
    """Of the nodes of a cluster and its drivers: with a token, and nothing of this process's own Ray or S3."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    return kept | {
        "HOME": home,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0f" * 32,
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": f"{ROOT}:{kept.get('PYTHONPATH', '')}",
    }


def start_head(temp: str, env: dict[str, str], cpus: int) -> tuple[str, subprocess.Popen]:
    """A head node with so many logical CPUs: its address, and the process that all of it descends from."""
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    start = [RAY, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}"]
    start += ["--include-dashboard=false", f"--temp-dir={temp}/r", "--object-store-memory=100000000"]
    return f"127.0.0.1:{port}", started(start, env)


def started(command: list[str], env: dict[str, str]) -> subprocess.Popen:
    """A node in a session of its own, without its output."""
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=env, start_new_session=True, **quiet)


@contextmanager
def two_nodes(both_env: dict[str, str] = {}, second_env: dict[str, str] = {}) -> Iterator[TwoNodes]:
    """The cluster, with both nodes up; everything of it is gone at the end.

    ``both_env`` are variables of both nodes and the driver, ``second_env`` those that the second has otherwise.
    """
    temp = tempfile.mkdtemp(prefix="wm-")  # short: the paths of Ray's sockets may have 107 bytes
    root = Path(temp) / "data"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    of_a_kill = {"RAY_health_check_period_ms": "300", "RAY_health_check_failure_threshold": "2"}
    env = environment(temp) | of_a_kill | both_env
    address, head = start_head(temp, env, cpus=1)
    cluster = TwoNodes(root, address, env, temp, second_env, head)
    try:
        cluster.wait_for(1)
        cluster.start_second()
        yield cluster
    finally:
        for node in (cluster.driver, cluster.second, cluster.head):
            if node is not None:
                kill_tree(node.pid)
                node.wait()
        shutil.rmtree(temp, ignore_errors=True)
