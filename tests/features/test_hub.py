"""A model by its name on the Hugging Face hub: its commit is pinned, its hash known before its weights come."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from checkpoints import net_of, tiny_hubert
from places import ROOT

from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.features.weights import describe

COMMIT = "c0ffee" * 6 + "c0ff"
ASKED = """
import sys
from wavmill.pipeline.features.weights import describe, fetched
known = describe("some/net", sys.argv[1])
print(known.sha256, known.revision, flush=True)
print(fetched("some/net", known.sha256, known.revision))
"""


@pytest.fixture
def hub():
    """A hub with one model, what was asked of it, and its address."""
    with serving({path.name: path.read_bytes() for path in Path(tiny_hubert()).iterdir()}) as pair:
        yield pair


@contextmanager
def serving(files, ranges=True):
    """A hub with a model of these files; ``ranges``: it answers for a part of a file. A GET of a part is a PART."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            path = self.path.partition("?")[0]
            part = ranges and re.fullmatch(r"bytes=0-([0-9]+)", self.headers.get("Range", ""))
            asked.append(("PART" if part else self.command, path))
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
                body = files[name][: int(part[1]) + 1] if part else files[name]
                self.answer(206 if part else 200, body, ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"')
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
    root = ROOT
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


RESOLVED = """
import sys
from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.features.weights import fetched
choice = HuBERT(model="some/net", layer=2).resolved()
print(choice.normalize, flush=True)
print(fetched(choice.model, choice.sha256, choice.revision))
"""


def resolve_there(endpoint, home):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    root = ROOT
    return subprocess.run([sys.executable, "-c", RESOLVED], env=environment, cwd=root, capture_output=True, text=True)


def test_a_sharded_model_comes_with_its_index_and_what_it_says_of_its_input(tmp_path):
    net_of("Base").save_pretrained(tmp_path / "net", max_shard_size="200KB")
    says = {"feature_extractor": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}}
    (tmp_path / "net" / "processor_config.json").write_text(json.dumps(says))
    files = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    with serving(files) as (_, endpoint):
        answer = resolve_there(endpoint, tmp_path / "home")
    assert answer.returncode == 0, answer.stderr
    normalized, folder = answer.stdout.split()
    assert normalized == "True" and len(list(Path(folder).glob("model-*.safetensors"))) > 1
    [found] = HuBERT(model=folder, layer=2, normalize=False).open()([np.ones(9000, np.float32)])
    [right] = HuBERT(model=tiny_hubert(), layer=2).open()([np.ones(9000, np.float32)])
    assert np.array_equal(found, right)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_model_on_the_hub_that_does_not_fit_is_one_line_and_its_weights_are_not_fetched(tmp_path, ranges):
    files = {path.name: path.read_bytes() for path in Path(tiny_hubert()).iterdir()}
    files["config.json"] = json.dumps({**json.loads(files["config.json"]), "hidden_size": 64}).encode()
    with serving(files, ranges) as (asked, endpoint):
        answer = resolve_there(endpoint, tmp_path)
    assert "JobError: feature.model: some/net does not fit its config.json" in answer.stderr, answer.stderr
    assert not ranges or ("GET", f"/some/net/resolve/{COMMIT}/model.safetensors") not in asked
