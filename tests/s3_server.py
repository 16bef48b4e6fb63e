"""Two S3 servers on loopback for the tests: moto (quick, in memory) and OpenStack Swift (real, on disk)."""

import contextlib
import ctypes
import getpass
import gzip
import importlib
import importlib.util
import json
import os
import pwd
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READY_S = 60  # both need 1 to 3 s; a busy machine with two cores may take ten times as long


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where a running server is and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    processes: tuple[subprocess.Popen[bytes], ...] = field(default=(), repr=False)

    def env(self) -> dict[str, str]:
        """What boto3, pyarrow and DuckDB read, for this process or for Ray's workers."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
        }

    def client(self, **options: Any) -> Any:
        """A boto3 client that reads no environment variable and no file for what it needs."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            **options,
        )

    def kill(self) -> None:
        """kill -9 of every process of the server."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    """An empty moto of its own: conditional puts as on AWS, but any credentials do and nothing is kept."""
    [port] = _free_ports(1)
    with tempfile.TemporaryDirectory(prefix="moto-") as logs:
        commands = {"moto": ["moto", str(port)]}
        with _running(commands, [port], Path(logs)) as processes:
            yield S3Server(
                endpoint=f"http://127.0.0.1:{port}", access_key="test", secret_key="testing", processes=processes
            )


@contextlib.contextmanager
def swift_server(root: Path) -> Iterator[S3Server]:
    """Swift with its S3 interface, everything it keeps below ``root``; ``root/*.log`` says what went wrong.

    A root that was served before keeps its objects and its ports: clients of a killed server find it again.
    Start it from the main thread, the servers end with the thread that started them.
    """
    if importlib.util.find_spec("swift") is None:
        raise RuntimeError("OpenStack Swift is not installed here; pip install -e '.[dev]' brings it")
    ports = _configure_swift(root.resolve())
    commands = {name: ["swift", name, str(root.resolve() / f"{name}-server.conf")] for name in ports}
    with _running(commands, list(ports.values()), root) as processes:
        yield S3Server(
            endpoint=f"http://127.0.0.1:{ports['proxy']}",
            access_key="test:tester",
            secret_key="testing",
            processes=processes,
        )


@contextlib.contextmanager
def _running(commands: dict[str, list[str]], ports: list[int], logs: Path) -> Iterator[tuple[subprocess.Popen, ...]]:
    """Start this file once per command, wait until all ports answer, kill everything at the end."""
    with contextlib.ExitStack() as stack:
        processes = []
        for name, command in commands.items():
            log = stack.enter_context((logs / f"{name}.log").open("ab"))
            arguments = [sys.executable, __file__, str(os.getpid()), *command]
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        deadline_s = time.monotonic() + READY_S
        while not all(map(_answers, ports)):
            dead = [n for n, process in zip(commands, processes, strict=True) if process.poll() is not None]
            if dead or time.monotonic() > deadline_s:
                state = f"{dead[0]} ended by itself" if dead else f"no answer on {ports} within {READY_S} s"
                tails = [f"--- {n}.log\n{(logs / f'{n}.log').read_text()[-2000:]}" for n in dead or commands]
                raise RuntimeError(f"the S3 server did not start: {state}\n" + "\n".join(tails))
            time.sleep(0.05)
        yield tuple(processes)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    """Below 32768, where the kernel takes no port for a client's end: free ones stay free over a restart."""
    drawn = random.SystemRandom().sample(range(20_000, 32_000), 100)  # no seed: two sessions must not meet
    return [port for port in drawn if not _answers(port)][:count]


SWIFT_COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
bind_timeout = 5
user = {user}
swift_dir = {root}
devices = {root}
mount_check = false
workers = 0
log_level = WARNING
"""

# The timeouts are long because nothing here repairs what Swift's defaults (0.5 to 3 s) would give up on a busy
# machine: an object whose container update is late would miss from the listings for ever.
SWIFT_STORAGE = """
fallocate_reserve = 0
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
node_timeout = 60
conn_timeout = 10
container_update_timeout = 60
"""

# The multipart limits are those of S3: 10,000 parts, Swift's default is 1,000.
SWIFT_PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 60
conn_timeout = 10
error_suppression_limit = 1000000
[filter:s3api]
use = egg:swift#s3api
max_upload_part_num = 10000
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
rate_limit_under_size = 0
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:cache]
paste.filter_factory = s3_server:swift_cache
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:copy]
use = egg:swift#copy
[filter:dlo]
use = egg:swift#dlo
"""


def _configure_swift(root: Path) -> dict[str, int]:
    """Write rings and settings for one device, unless ``root`` has them; return the ports by server."""
    known = root / "ports.json"
    if known.exists():
        return json.loads(known.read_text())
    (root / "disk").mkdir(parents=True)
    try:
        os.setxattr(root, "user.swift", b"")  # Swift keeps an object's name and metadata so
    except OSError as error:
        raise RuntimeError(f"{root} is on a file system without extended attributes, which Swift needs") from error
    (root / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = wavmill\n[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    ports = dict(zip(("account", "container", "object", "proxy"), _free_ports(4), strict=True))
    for name, port in ports.items():
        ...
    known.write_text(json.dumps(ports))
    return ports
