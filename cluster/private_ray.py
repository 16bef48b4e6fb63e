"""Keep a private Ray private: it listens on loopback only, and its sessions' folder is closed to other users."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# "Is this machine part of a cluster of several?", despite its name on Linux too. Ray takes 127.0.0.1 as the address of
# its node only when this says no (an address given to ray.init is not taken when it is loopback), and all its processes
# listen at the address of their node: on loopback if that is loopback, otherwise on every interface.
SEVERAL_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
SOCKET_BYTES = 103  # of the path of a socket, where that is least (macOS)
SESSION_BYTES = len("-abcdefgh/ray/session_2026-11-26_01-53-45_830536_1234567/sockets/plasma_store")


@contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that is started while this lasts listens on loopback alone. Does nothing when the user set SEVERAL_NODES.

    Ray's processes inherit the variable; it is restored, as this process may join a cluster later.
    """
    if SEVERAL_NODES in os.environ:
        yield
        return
    os.environ[SEVERAL_NODES] = "0"
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER  # read from the variable when Ray was first imported, maybe long ago
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(SEVERAL_NODES, None)


def session_parent() -> str:
    """A folder for the sessions of a private Ray, inside one that only this user can enter; made when there is none.

    It is where Ray puts /tmp/ray: in RAY_TMPDIR, else TMPDIR, else /tmp, but in /tmp when the name of a socket of the
    session would be too long for the system. To close the session's folder itself does not last: every worker of Ray
    that starts makes it, and the folder given here, writable by everybody again.
    """
    from ray._common.utils import get_default_system_temp_dir

    base = Path(get_default_system_temp_dir()).absolute()
    if len(os.fsencode(_private(base))) + SESSION_BYTES > SOCKET_BYTES:
        base = Path("/tmp")
    base.mkdir(parents=True, exist_ok=True)
    folder = _private(base)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():  # another user may have been first
            folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=base))
        elif stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    return str(folder / "ray")


def _private(base: Path) -> Path:
    return base / f"wavmill-{os.getuid()}"
