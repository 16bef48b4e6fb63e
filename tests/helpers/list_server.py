"""An S3 server that can do nothing but list, 1,000 keys a page, and counts what it is asked: python list_server.py

Reads the keys from standard input, one a line, and prints its address; GET /asked says how often it was asked what.
"""

import http.server
import json
import subprocess
import sys
import urllib.request
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

PAGE_KEYS = 1000
CONTENT = (
    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>900</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def page_of(keys: list[str], prefix: str, after: str) -> str:
    """One answer to ListObjectsV2."""
    lo = bisect_left(keys, max(prefix, f"{after}\0" if after else ""))
    hi = min(lo + PAGE_KEYS, bisect_left(keys, f"{prefix}\U0010ffff"))
    more = hi < len(keys) and keys[hi].startswith(prefix)
    token = f"<NextContinuationToken>{escape(keys[hi - 1])}</NextContinuationToken>" if more else ""
    found = "".join(CONTENT.format(escape(key)) for key in keys[lo:hi])
    return (
        "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{max(0, hi - lo)}</KeyCount>{found}{token}"
        "</ListBucketResult>"
    )


def serve(keys: list[str]) -> None:
    asked = Counter[str]()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            where = urlsplit(self.path)
            given = {name: values[0] for name, values in parse_qs(where.query).items()}
            status, body = 404, ""
            if where.path == "/asked":
                status, body = 200, json.dumps(asked)
                asked.clear()
            elif self.command == "GET" and "list-type" in given:
                asked["list"] += 1
                status, body = 200, page_of(keys, given.get("prefix", ""), given.get("continuation-token", ""))
            else:
                asked[f"{self.command} {where.path}"] += 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        print(f"http://127.0.0.1:{listening.server_port}", flush=True)
        listening.serve_forever()


@contextmanager
def listing(keys: list[str]) -> Iterator[str]:
    """The address of such a server, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve())]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin and server.stdout
    try:
        server.stdin.write("\n".join(sorted(keys)))
        server.stdin.close()
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def asked_of(address: str) -> dict[str, int]:
    """How often the server was asked what since it was asked this."""
    with urllib.request.urlopen(f"{address}/asked") as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    serve(sys.stdin.read().split("\n"))
