"""Two S3 servers on loopback for the tests: moto (quick, in memory) and OpenStack Swift (real, on disk).

S3 promises that of racing puts with ``If-None-Match: *`` one wins. Both servers look first and write later, so that
several can win; here both take such puts one by one, and keep the promise.
"""

import ctypes
import gzip
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
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

READY_S = 60.0  # moto takes 1 s and Swift 3 s on two idle cores


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """Where a running server is and who may use it."""

    endpoint: str
    access_key: str = "test:tester"  # of both servers: boto3 keeps the first keys it read in a process
    secret_key: str = "testing"
    region: str = "us-east-1"
    processes: list[subprocess.Popen] = field(default_factory=list, repr=False)

    def env(self) -> dict[str, str]:
        """What boto3, pyarrow and their like read, for this process or for Ray's workers."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
        }

    def client(self, **options: Any) -> Any:
        """A boto3 client that needs nothing from the environment."""
        import boto3

        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=self.region, **keys, **options)

    def kill(self) -> None:
        """kill -9 of every process."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """An empty moto in a process of its own. It takes any credentials and keeps nothing."""
    [port] = _free_ports(1)
    server = S3Server(endpoint=f"http://127.0.0.1:{port}")
    with tempfile.TemporaryDirectory(prefix="moto-") as logs, _running(server, {"moto": port}, Path(logs)):
        yield server


@contextmanager
def swift_server(root: Path) -> Iterator[S3Server]:
    """Swift and its S3 interface; its objects, settings and logs are below ``root``.

    A root that was served before keeps its objects and ports, so clients of a killed server find it again.
    """
    if importlib.util.find_spec("swift") is None:
        raise RuntimeError("OpenStack Swift is not installed; pip install -e '.[dev]' brings it")
    ports = _configure_swift(root.resolve())
    server = S3Server(endpoint=f"http://127.0.0.1:{ports['proxy']}")
    with _running(server, ports, root.resolve()):
        yield server


@contextmanager
def _running(server: S3Server, ports: dict[str, int], root: Path) -> Iterator[None]:
    """One process of this file per port, all ready. Enter it from a thread that lives on: they end with it."""
    logs = {name: root / f"{name}.log" for name in ports}
    try:
        for name, port in ports.items():
            command = [sys.executable, __file__, str(os.getpid()), name, str(port), str(root)]
            with logs[name].open("ab") as log:
                server.processes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + READY_S
        while not all(map(_answers, ports.values())):
            if time.monotonic() > deadline or any(process.poll() is not None for process in server.processes):
                tails = [f"{log}: {log.read_text()[-2000:]}" for log in logs.values()]
                raise RuntimeError("\n".join(["the S3 server did not start", *tails]))
            time.sleep(0.05)
        yield
    finally:
        server.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    """Below 32768 the kernel takes no port for a client's end, so a free one stays free over a restart."""
    drawn = random.SystemRandom().sample(range(20_000, 32_000), 100)  # not seeded: two sessions must differ
    return [port for port in drawn if not _answers(port)][:count]


# The timeouts are long because what Swift gives up after 0.5 to 10 s it leaves to daemons, and none runs here: an
# object that its bucket heard of too late would never be listed.
SWIFT_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {root}
devices = {root}
mount_check = false
workers = 0
log_level = WARNING
[pipeline:main]
pipeline = {filters} {name}-server
[app:{name}-server]
use = egg:swift#{name}
account_autocreate = true
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60
[filter:creates]
paste.filter_app_factory = s3_server:swift_creates
[filter:cache]
paste.filter_app_factory = s3_server:swift_cache
[filter:s3api]
use = egg:swift#s3api
[filter:slo]
use = egg:swift#slo
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
"""
SWIFT_FILTERS = {"account": "", "container": "", "object": "creates", "proxy": "cache s3api tempauth slo"}


def _configure_swift(root: Path) -> dict[str, int]:
    """Write the settings for one disk, unless ``root`` has them; return the port of each server."""
    known = root / "ports.json"
    if known.exists():
        return json.loads(known.read_text())
    (root / "disk").mkdir(parents=True)
    try:
        os.setxattr(root / "disk", "user.swift", b"")
    except OSError as error:
        raise RuntimeError(f"the file system of {root} has no extended attributes, Swift needs them") from error
    ports = dict(zip(SWIFT_FILTERS, _free_ports(len(SWIFT_FILTERS)), strict=True))
    user = pwd.getpwuid(os.geteuid()).pw_name
    for name, port in ports.items():
        conf = SWIFT_CONF.format(name=name, port=port, root=root, user=user, filters=SWIFT_FILTERS[name])
        (root / f"{name}.conf").write_text(conf)
        (root / f"{name}.ring.gz").write_bytes(_ring(port))
    policy = "[storage-policy:0]\nname = one\ndefault = yes\n"
    (root / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = wavmill\n{policy}")
    known.write_text(json.dumps(ports))
    return ports


def _ring(port: int) -> bytes:
    """Swift's ring file, version 1: 16 partitions, all on the one disk. Its own tool takes three runs of 1 s."""
    at = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
    disk = {"id": 0, "region": 1, "zone": 1, "device": "disk", "weight": 1.0, "meta": ""} | at
    facts = json.dumps({"devs": [disk], "part_shift": 32 - 4, "replica_count": 1}).encode()
    return gzip.compress(b"R1NG" + struct.pack("!HI", 1, len(facts)) + facts + bytes(2 * 16))


def swift_creates(app: Callable, settings: dict[str, str], **_: str) -> Callable:
    """Runs in the object server: puts of one object with ``If-None-Match`` go one by one."""
    from eventlet.semaphore import Semaphore

    turns = defaultdict(Semaphore)

    def answer(environ: dict[str, Any], start: Callable) -> Any:
        creates = environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ
        with turns[environ["PATH_INFO"]] if creates else nullcontext():
            return app(environ, start)

    return answer


def swift_cache(app: Callable, settings: dict[str, str], **_: str) -> Callable:
    """Runs in the proxy: a dict in place of memcached, which Swift asks about each bucket; twice as quick."""
    kept: dict[str, tuple[str, float]] = {}

    class Cache:
        def get(self, key: str, **_: Any) -> Any:
            text, until = kept.get(key, ("null", 0.0))
            return json.loads(text) if time.monotonic() < until else None

        def set(self, key: str, value: Any, **options: Any) -> None:
            kept[key] = json.dumps(value), time.monotonic() + options["time"]

        def delete(self, key: str, **_: Any) -> None:
            kept.pop(key, None)

    def answer(environ: dict[str, Any], start: Callable) -> Any:
        environ["swift.cache"] = Cache()
        return app(environ, start)

    return answer


def _serve_moto(port: str) -> None:
    from moto.s3.responses import S3Response
    from moto.server import main

    turn, on_key = threading.Lock(), S3Response._key_response

    def one_by_one(*args: Any, **options: Any) -> Any:
        with turn:
            return on_key(*args, **options)

    S3Response._key_response = one_by_one
    main(["-H", "127.0.0.1", "-p", port])


def _serve(parent: str, name: str, port: str, root: str) -> None:
    """Be one server until the thread that asked for it ends, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        return
    if name == "moto":
        _serve_moto(port)
    sys.argv = [name, f"{root}/{name}.conf", "--verbose"]
    importlib.import_module("swift.obj.server" if name == "object" else f"swift.{name}.server").main()


if __name__ == "__main__":
    _serve(*sys.argv[1:])


def bucket_on(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, with the environment set so that this process and its children reach the server."""
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    bucket = f"b-{os.urandom(6).hex()}"
    server.client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"
