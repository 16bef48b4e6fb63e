"""The only call of ray.init, always with an address; "local" starts a private cluster of one node."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from wavmill.cluster.private_ray import on_loopback, session_parent
from wavmill.cluster.ray_address import address_of, check_cluster, running_here
from wavmill.pipeline.errors import JobError, Stopped


def connect(on: str | None = None, verbose: bool = False) -> Any:
    """Connect to the cluster at ``on``, else at RAY_ADDRESS, else start a private local one; return ray.

    Ray's own log lines stay in its session's files unless ``verbose``.
    """
    address = address_of(on)
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of Ray's C++ parts, which write to the terminal
    # A local Ray ends idle workers beyond one per core after a second, to start them anew for the next task: on two
    # cores that was 20 of 32 workers and a third of the time of an hour of MFCC.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    import ray
    import ray.data

    if ray.is_initialized():
        return ray
    if address != "local":
        address = running_here() if address == "auto" else address
        check_cluster(address)
    level = logging.INFO if verbose else logging.CRITICAL  # errors are raised, and printed once by the verb
    local: dict[str, Any] = {"include_dashboard": False, "_temp_dir": session_parent()} if address == "local" else {}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with silent(not verbose), on_loopback() if local else nullcontext():
            ray.init(address=address, logging_level=level, log_to_driver=verbose, **local)
    except SystemExit:  # raised by Ray's handler of SIGTERM while Ray starts
        if callable(on_sigterm):
            on_sigterm(signal.SIGTERM, None)
        raise
    except Exception as error:
        known = OSError | RuntimeError | ValueError | ray.exceptions.RayError
        if not isinstance(error, known) and type(error) is not Exception:
            raise  # Ray raises a bare Exception, too, when a node starts too slowly
        reason = " ".join(str(error.__cause__ or error).split())[-300:]
        if "ersion mismatch" in reason:
            raise JobError(f"the Ray cluster at {address} runs other versions: {reason}") from error
        failed = "a Ray on this machine did not start" if local else f"cannot reach the Ray cluster at {address}"
        raise Stopped(f"{failed}: {reason}; run the same command again") from error
    _keep_sigterm(on_sigterm)
    if not verbose:
        _print_less()
    if local and token_path().exists():
        token_path().chmod(0o600)  # Ray writes it readable by everybody on the machine
    ray.data.DataContext.get_current()  # sets up its own logging, at INFO
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(level)
    return ray


def _keep_sigterm(handler: Any) -> None:
    """Restore the program's handler of SIGTERM, else Ray's Python one: Ray's C++ handler prints a stack."""
    if threading.current_thread() is threading.main_thread():
        own = handler not in (None, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, handler if own else signal.getsignal(signal.SIGTERM))


def _print_less() -> None:
    """Print reports of Ray's servers as one line each, for which Ray has no option."""
    from ray._private import worker

    worker.print_to_stdstream = _warn


def _warn(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Replaces Ray's function that prints its servers' reports (pages for a lost node): prints the first line."""
    from wavmill.pipeline.execution.worker_errors import first_sentence

    if said := first_sentence("\n".join(data["lines"])):
        sys.stderr.write(f"ray: {said}\n")


def token_path() -> Path:
    """Where Ray keeps the token of a cluster with token authentication, which a local one has too."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


@contextmanager
def silent(yes: bool) -> Iterator[None]:
    """Suppress what Ray's C++ parts write when Ray starts; errors are raised as exceptions."""
    if not yes:
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
