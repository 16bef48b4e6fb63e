"""What a decoder that means harm tries: each raises OSError, or has done it. ``where``: a file whose name is a port."""

import ctypes
import fcntl
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()


def _call(name, *given):
    """A function of the C library that gives -1 for an error."""
    if getattr(LIBC, name)(*given) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _vector():
    """(iovec of 8 bytes of this process's memory, its buffer)."""
    buffer = ctypes.create_string_buffer(8)
    return struct.pack("=QQ", ctypes.addressof(buffer), 8), buffer


def _between(name):
    """process_vm_readv or process_vm_writev of the parent, at an address of this process."""
    (mine, _), (theirs, _) = kept = _vector(), _vector()
    one = ctypes.c_ulong(1)
    if getattr(LIBC, name)(PARENT, mine, one, theirs, one, ctypes.c_ulong(0)) == -1:
        number = ctypes.get_errno()
        if number == 14 and kept:  # EFAULT: there is nothing at that address, and it was allowed to look
            return
        raise OSError(number, os.strerror(number))


def _fork():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def _bind():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


def _connect(where):
    with socket.socket() as one:
        one.settimeout(1)
        one.connect(("127.0.0.1", int(where)))


def _unix(where):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(where)


def _in_a_thread(what):
    """The same from a thread of its own, as FFmpeg has some."""
    raised = []

    def tried():
        try:
            what()
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=tried)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


FILES = {  # reading; refused by Landlock alone
    "read": lambda where: Path(where).read_bytes(),
    "read in a thread": lambda where: _in_a_thread(lambda: Path(where).read_bytes()),
    "list": lambda where: list(Path(where).parent.iterdir()),
    "passwd": lambda where: Path("/etc/passwd").read_bytes(),
    "parent's memory": lambda where: Path(f"/proc/{PARENT}/mem").open("rb").close(),
    "parent's environment": lambda where: Path(f"/proc/{PARENT}/environ").read_bytes(),
    "parent's handles": lambda where: list(Path(f"/proc/{PARENT}/fd").iterdir()),
    "own environment": lambda where: Path("/proc/self/environ").read_bytes(),
}
OTHER = {
    "write": lambda where: Path(where).write_bytes(b"overwritten"),
    "append": lambda where: Path(where).open("ab").close(),
    "create": lambda where: Path(f"{where}.new").touch(),
    "create beside the program": lambda where: (
        Path(sys.modules["wavmill.pipeline"].__file__).with_name("new.py").touch()
    ),
    "remove": lambda where: Path(where).unlink(),
    "rename": lambda where: Path(where).rename(f"{where}.new"),
    "truncate": lambda where: os.truncate(where, 0),
    "mode": lambda where: Path(where).chmod(0o777),
    "times": lambda where: os.utime(where, (0, 0)),
    "folder": lambda where: Path(f"{where}.new").mkdir(),
    "link": lambda where: Path(f"{where}.new").symlink_to(where),
    "memory file": lambda where: os.memfd_create("new"),
    "socket": lambda where: socket.socket().close(),
    "datagram": lambda where: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "pair": lambda where: [one.close() for one in socket.socketpair()],
    "bind": lambda where: _bind(),
    "connect": lambda where: _connect(Path(where).name),
    "unix": lambda where: _unix(f"{where}.socket"),
    "fork": lambda where: _fork(),
    "subprocess": lambda where: subprocess.run(["/bin/true"]),
    "posix_spawn": lambda where: os.posix_spawn("/bin/true", ["/bin/true"], {}),
    "exec": lambda where: os.execv("/bin/true", ["/bin/true"]),
    "ptrace": lambda where: _call("ptrace", ctypes.c_long(0x4206), ctypes.c_long(PARENT), None, None),
    "process_vm_readv": lambda where: _between("process_vm_readv"),
    "process_vm_writev": lambda where: _between("process_vm_writev"),
    "signal": lambda where: os.kill(PARENT, 0),
    "signal to all": lambda where: os.kill(-1, 0),
    "signal to the group": lambda where: os.killpg(os.getpgid(PARENT), 0),
    "pidfd": lambda where: os.close(os.pidfd_open(PARENT)),
    "owner": lambda where: fcntl.fcntl(0, fcntl.F_SETOWN, PARENT),
    "limits": lambda where: resource.prlimit(
        PARENT, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)
    ),
    "priority": lambda where: os.setpriority(os.PRIO_PROCESS, PARENT, os.getpriority(os.PRIO_PROCESS, PARENT)),
    "affinity": lambda where: os.sched_setaffinity(PARENT, os.sched_getaffinity(PARENT)),
    "outlive": lambda where: _call("prctl", 1, 0, 0, 0, 0),
    "io_uring": lambda where: _call("syscall", ctypes.c_long(425), ctypes.c_long(1), ctypes.create_string_buffer(120)),
    "unshare": lambda where: _call("unshare", 0x10000000),
}
GROUPS = {"files": FILES, "other": OTHER}
ATTEMPTS = {**FILES, **OTHER}
