"""A model by its name on the Hugging Face hub: its commit is pinned, its hash known before its weights come."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from checkpoints import tiny_hubert

from pipeline.weights import describe

COMMIT = "c0ffee" * 6 + "c0ff"
ASKED = """
import sys
from pipeline.weights import describe, fetched
known = describe("some/net", sys.argv[1])
print(known.sha256, known.revision, flush=True)
print(fetched("some/net", known.sha256, known.revision))
"""


@pytest.fixture
def hub():
    """A hub with one model, what was asked of it, and the environment in which it is the hub."""
    files = {path.name: path.read_bytes() for path in Path(tiny_hubert()).iterdir()}
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            path = self.path.partition("?")[0]
            asked.append((self.command, path))
            name = path.rpartition("/")[2]
            if path in (f"/api/models/some/net/revision/{revision}" for revision in ("main", COMMIT)):
                siblings = []
                for name, data in files.items():
                    lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
                    large = name.endswith(".safetensors")
                    siblings.append({"rfilename": name, "size": len(data), **({"lfs": lfs} if large else {})})
                self.answer(200, json.dumps({"id": "some/net", "sha": COMMIT, "siblings": siblings}).encode())
            elif path == f"/api/models/some/net/tree/{COMMIT}":
                tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in files.items()]
                self.answer(200, json.dumps(tree).encode())
            elif path.startswith(f"/some/net/resolve/{COMMIT}/") and name in files:
                self.answer(200, files[name], ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"')
            else:
                code = "RevisionNotFound" if path.startswith("/api/models/some/net/") else "RepoNotFound"
                self.answer(404, b"{}", **{"X-Error-Code": code})

        def answer(self, status, body, **headers):
            self.send_response(status)
            for header, value in {"X-Repo-Commit": COMMIT, "Content-Length": len(body), **headers}.items():
                self.send_header(header, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(endpoint, home, revision="main", **more):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **more}
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", ASKED, revision], env=environment, cwd=root, capture_output=True, text=True
    )


def test_a_model_on_the_hub_is_what_it_would_be_in_a_folder(hub, tmp_path):
    asked, endpoint = hub
    answer = ask(endpoint, tmp_path)
    assert not answer.returncode, answer.stderr
    known, folder = answer.stdout.splitlines()
    assert known == f"{describe(tiny_hubert()).sha256} {COMMIT}"
    assert {path.name for path in Path(folder).iterdir()} >= {"config.json", "model.safetensors"}
    assert COMMIT in folder
    weights = [at for at, (method, path) in enumerate(asked) if method == "GET" and path.endswith(".safetensors")]
    assert len(weights) == 1
    again = ask(endpoint, tmp_path)
    assert again.stdout == answer.stdout
    assert len([path for method, path in asked if method == "GET" and path.endswith(".safetensors")]) == 1


def test_a_model_that_the_hub_does_not_have_is_a_wrong_job(hub, tmp_path):
    answer = ask(hub[1], tmp_path, revision="nowhere")
    assert "JobError: feature.model: some/net is no folder here, and the hub does not give it" in answer.stderr


def test_a_model_that_was_here_before_needs_no_network(hub, tmp_path):
    first = ask(hub[1], tmp_path)
    assert ask("http://127.0.0.1:9", tmp_path, revision=COMMIT).stdout == first.stdout != ""


def test_without_a_network_the_error_says_where_was_looked(tmp_path):
    answer = ask("http://127.0.0.1:9", tmp_path)
    assert "JobError: feature.model: some/net is no folder here" in answer.stderr, answer.stderr
