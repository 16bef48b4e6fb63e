"""A proxy in front of an S3 server that does to a request what networks, disks and servers do to requests."""

import base64
import http.client
import http.server
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from s3_server import S3Server

ANSWERS = {  # instead of the server's
    "503": (503, "SlowDown"),
    "500": (500, "InternalError"),
    "409": (409, "ConditionalRequestConflict"),
    "expired": (400, "ExpiredToken"),
    "skewed": (403, "RequestTimeTooSkewed"),
}
AFTER = {"500 after": "500", "503 after": "503"}  # the server did it, and its answer was lost
FAULTS = (*ANSWERS, *AFTER, "reset", "reset after", "truncated", "flipped down", "flipped up")
RETRIED = ("503", "500", *AFTER, "reset", "reset after", "truncated", "flipped down")  # by the run itself
HOP = {"connection", "content-length", "date", "expect", "keep-alive", "server", "transfer-encoding"}


def crc32_of(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def flipped(body: bytes) -> bytes:
    """With one bit changed, in the middle: readers pass over much of what stands at the ends."""
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


class FaultProxy:
    """``inject`` makes the n-th request from now on fail; ``log`` has every (method, path) since it was emptied."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.faults: dict[int, str] = {}
        self.first: Sequence[str] = ()
        self.lock = threading.Lock()

    def inject(self, faults: dict[int, str], first: Sequence[str] = ()) -> None:
        """Faults by the number of the request, from 0; ``first`` in turn, at each request that was not made before."""
        with self.lock:
            self.log, self.faults, self.first = [], dict(faults), first

    def fault_of(self, method: str, path: str) -> str:
        with self.lock:
            new = (method, path) not in self.log
            self.log.append((method, path))
            if self.first and new:
                return self.first[len(set(self.log)) % len(self.first)]
            return self.faults.get(len(self.log) - 1, "")


@contextmanager
def faulty(server: S3Server) -> Iterator[tuple[S3Server, FaultProxy]]:
    """The server as it is seen through a proxy."""
    host, _, port = server.endpoint.removeprefix("http://").partition(":")
    proxy = FaultProxy()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            fault, body = proxy.fault_of(self.command, self.path), self.body()
            if fault == "reset":
                return self.reset()
            if fault in ANSWERS:
                return self.refuse(*ANSWERS[fault])
            if fault == "flipped up" and body:
                body = flipped(body)
            if (said := self.headers.get("x-amz-checksum-crc32")) and said != crc32_of(body):
                return self.refuse(400, "BadDigest")  # as S3 does, and moto does not
            there = http.client.HTTPConnection(host, int(port), timeout=30)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            there.request(self.command, self.path, body, {**sent, "Content-Length": str(len(body))})
            came = there.getresponse()
            data = came.read()
            there.close()
            if fault == "reset after":
                return self.reset()
            if fault in AFTER:
                return self.refuse(*ANSWERS[AFTER[fault]])
            if fault == "flipped down" and data:
                data = flipped(data)
            self.send_response(came.status)
            for name, value in came.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            length = came.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if fault == "truncated" else data)
            if fault == "truncated":
                self.reset()

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(pieces)

        def refuse(self, status: int, code: str) -> None:
            said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said)

        def reset(self) -> None:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that gave up

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield replace(server, endpoint=f"http://127.0.0.1:{listening.server_port}"), proxy
        listening.shutdown()
