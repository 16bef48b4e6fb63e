"""Check that a Ray cluster answers at an address, before ray.init, which retries silently for minutes."""

import os
import re
from pathlib import Path

from wavmill.pipeline.errors import JobError, NotAllowed, Stopped

ANSWER_S = 5.0  # for the request to a cluster's head
HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):(\d{1,5})")


def address_of(on: str | None) -> str:
    """The address in ``--on``, else RAY_ADDRESS, else "local". JobError when it cannot be that of a cluster."""
    if on is not None and not on.strip():
        raise JobError("--on is empty; give the head node as host:6379, or leave --on out for a Ray of this machine")
    address = (on or os.environ.get("RAY_ADDRESS") or "local").strip()
    if address in ("local", "auto"):
        return address
    if address.startswith("ray://"):
        raise JobError(f"{address}: Ray Client is not supported; give the address of the head node, as host:6379")
    if address.startswith(("http://", "https://")):
        raise JobError(f"{address} is the address of a dashboard; give that of the head node, as host:6379")
    found = HOST_PORT.fullmatch(address)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise JobError(f"{address} is no address of a cluster; give the head node as host:port, usually host:6379")
    return address


def check_cluster(address: str, answer_s: float = ANSWER_S) -> None:
    """Ask the cluster at host:port for its version, with this process's token.

    Raises JobError when there is no Ray of this version, NotAllowed when it refuses the token, Stopped when nothing
    answers, as it may be starting.
    """
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    try:
        with init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            version = head.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=answer_s).ray_version
    except ray.exceptions.AuthenticationError as error:
        raise NotAllowed(f"RAY_AUTH_MODE is token, and there is no token: {_token_advice()}") from error
    except grpc.RpcError as error:
        raise _refusal(address, error.code(), error.details() or "", answer_s) from error
    if version != ray.__version__:
        raise JobError(
            f"the cluster at {address} runs Ray {version}, and this is Ray {ray.__version__}; they must agree"
        )


def running_here() -> str:
    """The host:port of the cluster that this machine is part of, for "auto". JobError when it is part of none."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        address: str | None = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        address = None
    if address is None:
        raise JobError("no Ray runs on this machine; start one with 'ray start --head', or give --on host:6379")
    return address


def _refusal(address: str, code: object, details: str, answer_s: float) -> Exception:
    """The message for a failed request. The patterns are those of gRPC's messages."""
    import grpc

    host = address.rpartition(":")[0]
    again = "run the same command again when it is up"
    if code == grpc.StatusCode.UNAUTHENTICATED:
        mode = "" if os.environ.get("RAY_AUTH_MODE") == "token" else "set RAY_AUTH_MODE=token, and "
        return NotAllowed(f"the cluster at {address} wants its token: {mode}{_token_advice()}")
    if "Failed parsing HTTP/2" in details:
        return JobError(
            f"what listens at {address} is a dashboard or another server; the head node's own port is usually 6379"
        )
    if "not found" in details and "lookup" in details:
        return JobError(f"there is no host {host!r}: its name cannot be resolved")
    if "Connection refused" in details:
        return Stopped(f"nothing listens at {address}; {again}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Stopped(f"{address} did not answer within {answer_s:g} s; {again}")
    if code == grpc.StatusCode.UNAVAILABLE:
        return Stopped(f"cannot reach {address}: {details[-200:]}; {again}")
    return JobError(f"what listens at {address} is no Ray cluster: {details[-200:]}")


def _token_advice() -> str:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    return f"put the cluster's token into {path} or RAY_AUTH_TOKEN ('ray get-auth-token' on its head prints it)"
