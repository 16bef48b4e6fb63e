"""Remove a decoding process's access to files, the network and other processes, before its first sound.

Landlock (Linux 5.13) leaves it read access to Python, its libraries and this program, which import modules later; the
filter of system_calls.py refuses the rest. On kernels without one of them it is skipped, and ``doctor`` reports that.
Open file descriptors, and those received through the socket, still work.
"""

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from wavmill.pipeline.decoding.system_calls import refuse_new_privileges, refuse_system_calls

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same number on every machine
WHICH_VERSION, PATH_BENEATH = 1, 1
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
# access rights by version of Landlock: files, TCP ports, and (scope) other processes
FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
PORT_RIGHTS = {4: 0b11}
SCOPES = {6: 0b11}  # abstract sockets, signals
LIBRARIES = ("numpy", "av", "pyarrow", "pydantic")  # modules that import others later
SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/gnu/store", "/etc/ld.so.cache"),
    *("/usr/share/zoneinfo", "/etc/localtime", "/proc/cpuinfo", "/sys/devices/system/cpu"),
)


class Locks(NamedTuple):
    """The restrictions of a process."""

    privileges: bool = False
    landlock: int = 0  # the version of it; 0: none
    system_calls: bool = False

    def missing(self) -> list[str]:
        """What a decoder could do to this machine, as its kernel lacks a restriction."""
        found = [] if self.landlock else ["open files to read that its user may read"]
        if not self.system_calls:
            found += ["start processes, and reach those of its user", "use the network"]
            found += [] if self.landlock else ["write files"]
        return found


def lock() -> Locks:
    """Restrict this process permanently. To be called before another thread starts."""
    if not refuse_new_privileges():
        return Locks()
    return Locks(True, _landlock(), refuse_system_calls())


def readable() -> Iterator[Path]:
    """The files and folders that imports read: Python, libraries, this program; never a folder of sounds."""
    paths = sysconfig.get_paths()
    yield from (Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from (Path(prefix, "lib") for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix})
    for name in LIBRARIES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parents[1]  # C libraries may be beside the package
    program = Path(__file__).parents[2]
    yield from (program, program / "pipeline", program / "model")  # in a clone these are links
    yield from map(Path, SYSTEM)
    yield from (Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder)


def _landlock() -> int:
    """Enable Landlock for this process; return its version, 0 when the kernel has none."""
    if sys.platform != "linux":
        return 0
    version = _system_call(CREATE_RULESET, None, 0, WHICH_VERSION)
    if version < 1:
        return 0

    def known(rights: dict[int, int]) -> int:
        return sum(right for since, right in rights.items() if since <= version)

    handled = struct.pack("=QQQ", known(FILE_RIGHTS), known(PORT_RIGHTS), known(SCOPES))
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _system_call(CREATE_RULESET, handled, size, 0)
    if rules < 0:
        return 0
    try:
        for path in dict.fromkeys(readable()):
            _allow_reading(rules, path)
        return version if _system_call(RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow_reading(rules: int, path: Path) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it is not on this machine
        return
    try:
        rights = READ_FILE | (READ_FOLDER if path.is_dir() else 0)
        _system_call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """-> what the kernel returns; -1 for an error."""
    given = (ctypes.c_char_p(one) if isinstance(one, bytes | None) else ctypes.c_long(one) for one in arguments)
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *given))
