"""The addresses at which a process and its descendants listen, to find those that other machines can reach."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
LISTEN = "0A"  # a state of a socket, as in include/net/tcp_states.h


class Listening(NamedTuple):
    pid: int
    program: str
    address: IPv4Address | IPv6Address
    port: int

    @property
    def loopback(self) -> bool:
        mapped = self.address.ipv4_mapped if isinstance(self.address, IPv6Address) else None  # ::ffff:127.0.0.1
        return (mapped or self.address).is_loopback


def listening_below(pid: int) -> list[Listening]:
    """The TCP sockets that a process and its descendants listen at. Linux alone tells; elsewhere NotImplementedError.

    A process that ends meanwhile, or belongs to another user, is left out.
    """
    if not sys.platform.startswith("linux"):
        raise NotImplementedError("which sockets a process has is read from /proc")
    at = _listening()
    found = []
    for one in sorted(descendants(pid)):
        for inode in _sockets(one):
            if inode in at:
                found.append(Listening(one, _program(one), *at[inode]))
    return found


def descendants(pid: int) -> list[int]:
    """A process and all that it started, and those started, as far as they still have their parents; parents first."""
    children = defaultdict(list)
    for child, parent in _parents():
        children[parent].append(child)
    found = [pid]
    for one in found:
        found += children[one]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(errors="replace")
            except OSError:
                continue
            yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    try:
        names: Iterable[Path] = [*(PROC / str(pid) / "fd").iterdir()]
    except OSError:
        return
    for name in names:
        try:
            target = str(name.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _listening() -> dict[str, tuple[IPv4Address | IPv6Address, int]]:
    """Inode -> address and port, of every listening TCP socket in this network namespace."""
    found = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "self" / "net" / table).read_text().splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            local, state = fields[1], fields[3]
            if state == LISTEN:
                address, _, port = local.partition(":")
                found[fields[9]] = (_address(address), int(port, 16))
    return found


def _address(written: str) -> IPv4Address | IPv6Address:
    """An address as the kernel writes it: words of four bytes, each as a number in the machine's own byte order."""
    words = [int(written[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(written), 8)]
    return ip_address(b"".join(words))


def _program(pid: int) -> str:
    """What a process calls itself."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return Path(words[0].decode(errors="replace").strip()).name
