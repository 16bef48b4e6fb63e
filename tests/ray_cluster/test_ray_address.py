"""Every way to be wrong about a cluster's address, token or version is one line, at once, with the right exit code."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from wavmill.cluster.app import connecting
from wavmill.cluster.ray_address import address_of, check_cluster, running_here
from wavmill.pipeline.errors import JobError, NotAllowed, Stopped

TOKEN = "0f" * 32


class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """The one answer of a cluster's head that is asked for."""

    def __init__(self, version: str, token: str) -> None:
        self.version, self.token = version, token

    def CheckAlive(self, request, context):  # noqa: N802  the name is Ray's
        if self.token and ("authorization", f"Bearer {self.token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing")
        return gcs_service_pb2.CheckAliveReply(ray_version=self.version)


@contextmanager
def head(version: str = ray.__version__, token: str = "") -> Iterator[str]:
    """The address of a gRPC server on loopback that answers as a head does."""
    server = grpc.server(ThreadPoolExecutor(2))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Head(version, token), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


@contextmanager
def other_grpc() -> Iterator[str]:
    """A gRPC server that is no head of Ray's."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


@contextmanager
def dashboard() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """Something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def nobody() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    yield f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    """A process that neither knows of a cluster nor has a token."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("on", "what"),
    [
        ("", "--on is empty"),
        ("  ", "--on is empty"),
        ("foo", "foo is no address"),
        ("foo:", "no address"),
        ("host:0", "no address"),
        ("host:65536", "no address"),
        ("user@host:6379", "no address"),
        ("s3://bucket:1", "no address"),
        ("ray://head:10001", "Ray Client is not supported"),
        ("http://head:8265", "address of a dashboard"),
        ("https://head", "address of a dashboard"),
    ],
)
def test_what_can_be_no_address_is_a_usage_error_before_anything_starts(on, what):
    with pytest.raises(JobError, match=what):
        connecting(on, False)


@pytest.mark.parametrize("on", ["host:6379", "10.0.0.5:1", "[::1]:6379", "auto", "local", "a-b.example.org:65535"])
def test_an_address_is_taken_as_it_is(on):
    assert address_of(on) == on


def test_without_a_name_the_environment_says_where_else_it_is_this_machine(monkeypatch):
    assert address_of(None) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert address_of(None) == "head:6379"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert address_of(None) == "local"


def test_a_cluster_of_this_version_is_taken():
    with head() as address:
        check_cluster(address)


@pytest.mark.parametrize(
    ("where", "error", "what"),
    [
        (nobody, Stopped, "nothing listens"),
        (silent, Stopped, "did not answer within"),
        (dashboard, JobError, "is a dashboard or another server"),
        (other_grpc, JobError, "no Ray cluster"),
        (lambda: head("2.9.9"), JobError, "runs Ray 2.9.9, and this is Ray"),
        (lambda: head(token=TOKEN), NotAllowed, "set RAY_AUTH_MODE=token"),
    ],
)
def test_what_is_wrong_at_an_address_is_one_line(where, error, what):
    with where() as address, pytest.raises(error, match=what) as raised:
        check_cluster(address, answer_s=1.0)
    assert "\n" not in str(raised.value) and address in str(raised.value)


def test_a_host_that_is_none_is_a_wrong_address():
    with pytest.raises(JobError, match=r"there is no host 'no-such-host\.invalid'"):
        check_cluster("no-such-host.invalid:6379")


def test_a_machine_without_a_cluster_says_how_to_start_or_name_one(monkeypatch):
    from ray._private import services

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: None)
    with pytest.raises(JobError, match="no Ray runs on this machine"):
        running_here()
