"""The channel between sandbox_process.py and sandbox_worker.py: messages, file descriptors, samples, bytes."""

import json
import mmap
import os
import socket
import sys
from typing import Any

import numpy as np

from wavmill.pipeline.decoding.seekable import Seekable

TOGETHER = 16  # short sounds per message
READ_BYTES = 1 << 18


class MessageSocket:
    """A socket for messages: a line of JSON each, some with file descriptors."""

    def __init__(self, end: socket.socket) -> None:
        self.socket, self.buffer = end, bytearray()
        self.handles: list[int] = []

    def send(self, message: dict[str, Any], handles: list[int] | None = None) -> None:
        data = json.dumps(message).encode() + b"\n"
        if handles:
            data = data[socket.send_fds(self.socket, [data], handles) :]
        self.socket.sendall(data)

    def buffered(self) -> dict[str, Any] | None:
        """A complete message that was received, or None."""
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return None
        self.buffer = rest
        message: dict[str, Any] = json.loads(line)
        return message

    def more(self) -> bool:
        """Wait for bytes; False when the other end is closed, TimeoutError after the socket's timeout."""
        try:
            data, handles, _, _ = socket.recv_fds(self.socket, 1 << 16, TOGETHER)
        except ConnectionError:
            return False
        except BlockingIOError as error:
            raise TimeoutError from error
        self.buffer += data
        self.handles += handles
        return bool(data)

    def receive(self) -> dict[str, Any]:
        """The next message; ends the process when the other end is closed."""
        while (message := self.buffered()) is None:
            if not self.more():
                sys.exit()
        return message


class Samples:
    """float32 in memory shared by parent and child: a mapped file that grows."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.map: mmap.mmap | None = None

    def of(self, count: int) -> np.ndarray:
        """A view of the first ``count`` samples."""
        if self.map is None or len(self.map) < 4 * count:
            if os.fstat(self.handle).st_size < 4 * count or not count:
                _grow(self.handle, 4 << max(count, 1 << 16).bit_length())
            self.map = mmap.mmap(self.handle, 0)
        return np.frombuffer(self.map, np.float32, count)


def _grow(handle: int, size: int) -> None:
    """Allocate the pages now: writing to a page that cannot be allocated would kill the process."""
    if sys.platform == "linux":
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


class ParentFile(Seekable):
    """A file that the parent reads for the child."""

    def __init__(self, line: MessageSocket, given: int, size: int) -> None:
        super().__init__(size)
        self.line, self.given = line, given

    def readinto(self, into: Any) -> int:
        self.line.send({"read": [self.at, len(into)]})
        came: int = self.line.receive()["came"]
        os.preadv(self.given, [memoryview(into)[:came]], 0)
        self.at += came
        return came
