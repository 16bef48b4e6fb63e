"""A seccomp filter for decoding processes, for Linux on x86_64 and aarch64.

Decoding reads open files, allocates memory and starts threads. System calls that reach other processes, the network,
files by name, or the machine's settings are refused. It is a list of refused calls, not of allowed ones, because the
calls that decoders and the C library make change with their versions.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import NamedTuple

# name, number on x86_64, number on aarch64 ("-": there is none); from Linux's asm/unistd_64.h and asm-generic/unistd.h
REFUSED = """
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, ptrace 101 117, process_vm_readv 310 270
process_vm_writev 311 271, process_madvise 440 440, process_mrelease 448 448, kcmp 312 272, pidfd_open 434 434
pidfd_getfd 438 438, pidfd_send_signal 424 424, tkill 200 130, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240
setpriority 141 140, sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274
sched_setaffinity 203 122, ioprio_set 251 30, migrate_pages 256 238, move_pages 279 239
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242
creat 85 -, name_to_handle_at 303 264, open_by_handle_at 304 265, memfd_create 319 279, memfd_secret 447 447
truncate 76 45, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37
symlink 88 -, symlinkat 266 36, mkdir 83 -, mkdirat 258 34, rmdir 84 -, mknod 133 -, mknodat 259 33
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54
utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7
removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
inotify_init 253 -, inotify_init1 294 26, fanotify_init 300 262, mq_open 240 180, mq_unlink 241 181
shmget 29 194, shmat 30 196, shmctl 31 195, semget 64 190, semctl 66 191, semop 65 193, semtimedop 220 192
msgget 68 186, msgctl 71 187, msgsnd 69 189, msgrcv 70 188
bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, keyctl 250 219, add_key 248 217, request_key 249 218
mount 165 40, umount2 166 39, move_mount 429 429, fsopen 430 430, fsmount 432 432, fspick 433 433, open_tree 428 428
mount_setattr 442 442, pivot_root 155 41, chroot 161 51, unshare 272 97, setns 308 268, swapon 167 224, swapoff 168 225
reboot 169 142, sethostname 170 161, setdomainname 171 162, init_module 175 105, finit_module 313 273
delete_module 176 106, kexec_load 246 104, kexec_file_load 320 294, acct 163 89, quotactl 179 60, quotactl_fd 443 443
syslog 103 116, settimeofday 164 170, clock_settime 227 112, clock_adjtime 305 266, adjtimex 159 171
iopl 172 -, ioperm 173 -, vhangup 153 58
"""
# The C library or a decoder does without these when the kernel does not know them. The arguments of clone3 and openat2
# lie in memory, where a filter cannot look; io_uring does what other calls do, past any filter.
UNKNOWN = "clone3 435 435, openat2 437 437, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427"
NEWEST = 462  # later system calls are unknown, too

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # as the kernel names them: AUDIT_ARCH_...
CLONE_THREAD = 0x10000
F_SETOWN, F_SETSIG, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP = 8, 10, 15, 0x8901, 0x8902  # whom a handle sends signals
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into a terminal
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of the filter (BPF)
KILL, ERROR, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # what it returns
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # bytes in what it is given
SECCOMP_SET_MODE_FILTER = 1
ALL_THREADS, NO_SLOWDOWN = 1, 4  # NO_SLOWDOWN: before Linux 5.16 a filter also turned off speculative stores
SECCOMP = {"x86_64": 317, "aarch64": 277}


class ByArgument(NamedTuple):
    """A system call that is refused or allowed by one of its arguments."""

    numbers: tuple[int | None, int | None]  # on x86_64, on aarch64
    argument: int
    test: int  # EQUAL or ANY_BIT
    values: list[int]
    refused: bool  # refused when one of the values matches; otherwise allowed then, and refused when none does


def _by_argument(pid: int) -> list[ByArgument]:
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    return [
        ByArgument((56, 220), 0, ANY_BIT, [CLONE_THREAD], False),  # clone
        ByArgument((62, 129), 0, EQUAL, [pid], False),  # kill
        ByArgument((234, 131), 0, EQUAL, [pid], False),  # tgkill
        ByArgument((302, 261), 0, EQUAL, [0, pid], False),  # prlimit64
        ByArgument((2, None), 1, ANY_BIT, [writing], True),  # open
        ByArgument((257, 56), 2, ANY_BIT, [writing], True),  # openat
        ByArgument((72, 25), 1, EQUAL, [F_SETOWN, F_SETSIG, F_SETOWN_EX], True),  # fcntl
        ByArgument((16, 29), 1, EQUAL, [FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX], True),  # ioctl
        ByArgument((157, 167), 0, EQUAL, [PR_SET_PDEATHSIG], True),  # prctl: it dies with its parent
    ]


def numbers_in(table: str, machine: str) -> list[int]:
    """The numbers that the system calls of a table have on a machine; those that it does not have are left out."""
    column = 1 + list(ARCHITECTURES).index(machine)
    found = (entry.split()[column] for line in table.strip().splitlines() for entry in line.strip(" ,").split(","))
    return [int(number) for number in found if number != "-"]


def program_for(machine: str, pid: int) -> bytes:
    """The filter for process ``pid`` on "x86_64" or "aarch64"."""
    refuse, unknown = (RETURN, 0, 0, ERROR | errno.EPERM), (RETURN, 0, 0, ERROR | errno.ENOSYS)
    allow = (RETURN, 0, 0, ALLOW)
    made = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, ARCHITECTURES[machine]),  # not by the numbers of another architecture, such as 32 bits
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        (AT_LEAST, 0, 1, NEWEST + 1),
        unknown,
    ]
    for table, answer in ((REFUSED, refuse), (UNKNOWN, unknown)):
        for number in numbers_in(table, machine):
            made += [(EQUAL, 0, 1, number), answer]
    for rule in _by_argument(pid):
        own = rule.numbers[list(ARCHITECTURES).index(machine)]
        if own is None:
            continue
        fits, otherwise = (refuse, allow) if rule.refused else (allow, refuse)
        body = [(LOAD, 0, 0, ARGUMENTS_AT + 8 * rule.argument)]  # its lower half; both machines are little-endian
        for value in rule.values:
            body += [(rule.test, 0, 1, value), fits]
        made += [(EQUAL, 0, len(body) + 1, own), *body, otherwise]
    made.append(allow)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in made)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_new_privileges() -> bool:
    """Set no_new_privs, which filters need; False where that fails."""
    return bool(sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def refuse_system_calls() -> bool:
    """Apply the filter to this process and its threads, permanently; False where the system has no filters."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ARCHITECTURES or sys.maxsize < 1 << 32:
        return False
    code = program_for(machine, os.getpid())
    program = _Program(len(code) // 8, code)
    flags = ctypes.c_ulong(ALL_THREADS | NO_SLOWDOWN)
    mode = ctypes.c_ulong(SECCOMP_SET_MODE_FILTER)
    return bool(ctypes.CDLL(None).syscall(ctypes.c_long(SECCOMP[machine]), mode, flags, ctypes.byref(program)) == 0)
