"""Keys stay where they were set, and nothing that is read as data runs."""

import ast
import json
import os
import pickle
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from inline import WORDS, words
from places import HELPERS, ROOT
from s3_server import bucket_on
from source_code import PRODUCT, imports, roots, tree_of
from training import put_dataset

from wavmill.cluster import cli, connect
from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.errors import JobError, NotAllowed, Reject, Stopped, WavmillError, redacted
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.job.yaml_text import read_yaml
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.quantizers.codebooks import load_codebook, save_codebook
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import sha256
from wavmill.pipeline.store.s3 import translate_s3_errors
from wavmill.pipeline.trained_model import open_model
from wavmill.pipeline.workspace import Workspace

WAVMILL = str(Path(sys.executable).parent / "wavmill")
SIGNED = (
    "https://host/bucket/clip.wav?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={0}%2F20260101&X-Amz-Expires=900"
    "&X-Amz-Security-Token={0}&X-Amz-Signature={0}&AWSAccessKeyId={0}&x-amz-signature={0}"
)


@pytest.fixture
def canary(monkeypatch) -> bytes:
    """A text that is in the environment as keys and tokens are, and should be nowhere else."""
    text = f"canary{secrets.token_hex(16)}"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_API_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, text)
    return text.encode()


def wavmill(monkeypatch: Any, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wavmill", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_the_keys_of_the_environment_are_in_nothing_that_a_run_leaves(tmp_path, tone, wav, moto, monkeypatch, request):
    """Its output, every object of the store, and every log and file of Ray's session."""
    bucket = bucket_on(moto, monkeypatch)
    canary: bytes = request.getfixturevalue("canary")  # after the server's own keys
    for number in range(3):
        open_store(f"{bucket}/in").put(f"{number}.wav", wav(tone(0.3, seed=number)))
    (tmp_path / "job.yaml").write_text(WORDS.format(path=f"{bucket}/in", store=f"{bucket}/out"))
    with tempfile.TemporaryDirectory(prefix="ray") as sessions:  # its sockets want a short path
        monkeypatch.setenv("RAY_TMPDIR", sessions)
        ended = subprocess.run(
            [
                WAVMILL,
                "run",
                str(tmp_path / "job.yaml"),
                "--verbose",
                "--max-rejects",
                "1",
                "--set",
                "scale.engine=ray",
            ],
            capture_output=True,
        )
        assert ended.returncode == 0, ended.stderr.decode()
        left = {str(path): path.read_bytes() for path in Path(sessions).rglob("*") if path.is_file()}
    store = open_store(bucket)
    left |= {entry.key: store.read(entry.key) for entry in store.list("out")}
    left |= {"stdout": ended.stdout, "stderr": ended.stderr}
    assert sum("/logs/" in path for path in left) > 10 and sum(path.startswith("out/words/v1/") for path in left) > 3
    assert [path for path, data in left.items() if canary in data] == []


def test_nothing_of_the_environment_is_sent_to_a_cluster(canary, monkeypatch):
    """Ray shows a job's environment and metadata to all who reach its dashboard, and writes them to its log."""
    sent: list[Any] = []
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **options: sent.append(options))
    monkeypatch.setattr(connect, "check_cluster", lambda address: None)
    connect.connect("head:6379")
    assert [options.keys() for options in sent] == [{"address", "logging_level", "log_to_driver"}]
    assert canary.decode() not in repr(sent)


@pytest.mark.parametrize("word", ["runtime_env", "env_vars", "JobSubmissionClient", "environ.items", "environ.copy"])
def test_no_file_of_the_product_sends_an_environment_anywhere(word):
    allowed = {"environ.items": {"pipeline/store/s3.py"}}  # to make a client for each set of keys
    found = {str(path) for path in PRODUCT if word in (ROOT / path).read_text()}
    assert found == allowed.get(word, set())


def test_the_config_of_the_cluster_holds_no_keys():
    config = (ROOT / "ray_config.yaml").read_text()
    assert not re.search(r"AKIA|aws_secret|AWS_SECRET|_TOKEN=", config)
    assert yaml.safe_load(config)["auth"].keys() == {"ssh_user"}


def test_a_refusal_of_the_server_says_no_key(swift, monkeypatch, tmp_path, request, capsys):
    bucket = bucket_on(swift, monkeypatch)
    canary: bytes = request.getfixturevalue("canary")
    (tmp_path / "job.yaml").write_text(WORDS.format(path=bucket, store=bucket))
    assert wavmill(monkeypatch, "plan", str(tmp_path / "job.yaml")) == 77
    said = "".join(capsys.readouterr())
    assert "refused" in said and canary.decode() not in said


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "InternalError", "BadDigest"])
def test_whatever_the_server_writes_into_its_answer_no_signature_is_passed_on(code):
    from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

    address = SIGNED.format("canary")
    answer = {"Error": {"Code": code, "Message": f"no: {address}"}}
    for error in (
        ClientError(answer, "GetObject"),
        EndpointConnectionError(endpoint_url=address),
        HTTPClientError(error=f"https://me:canary@host/ and {address}"),
    ):
        with pytest.raises((NotAllowed, Stopped)) as raised, translate_s3_errors("s3://bucket/key"):
            raise error
        assert "canary" not in str(raised.value)


@pytest.mark.parametrize("error", [JobError, NotAllowed, Stopped, WavmillError])
def test_a_message_is_passed_on_without_signatures_and_passwords(error):
    said = str(error(f"cannot read '{SIGNED.format('canary')}', nor s3://AKIA:can/ary@bucket/x: why"))
    assert "canary" not in said and "can/ary" not in said
    assert said.startswith("cannot read 'https://host/bucket/clip.wav?X-Amz-Algorithm=") and said.endswith("x: why")
    again = pickle.loads(pickle.dumps(Reject("corrupt", SIGNED.format("canary"))))
    assert "canary" not in again.message + str(again) and again.reason == "corrupt"


@pytest.mark.parametrize("text", ["a=b&c", "s3://bucket/a:b@c", "x@y.z", "12:30 s3://b/p", "design=1", ""])
def test_a_message_without_secrets_stays_as_it_is(text):
    assert redacted(text) == text


@pytest.mark.parametrize("address", [SIGNED, "s3://AKIA0000:{}@bucket/prefix", "s3://AKIA0000:{}/more@bucket/prefix"])
@pytest.mark.parametrize("option", ["source.path", "store", "show"])
def test_an_address_with_a_key_in_it_is_refused_and_not_repeated(
    address, option, tmp_path, monkeypatch, capsys, canary
):
    address = address.format(canary.decode())
    (tmp_path / "job.yaml").write_text(WORDS.format(path=tmp_path, store=tmp_path / "store"))
    arguments = ["plan", str(tmp_path / "job.yaml"), "--set", f"{option}={address}"]
    assert wavmill(monkeypatch, *(["show", address] if option == "show" else arguments)) == 2
    assert canary.decode() not in "".join(capsys.readouterr())


def test_a_manifest_of_presigned_addresses_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": SIGNED.format("canary")}))
    job = words(tmp_path, tmp_path / "store", f"source={{kind: manifest, path: {tmp_path}/list.jsonl}}")
    with pytest.raises(JobError, match="neither a path nor an s3:// address") as raised:
        make_plans(Workspace(job))
    assert "canary" not in str(raised.value) and not (tmp_path / "store").exists()


# ---- what is read is data --------------------------------------------------------------------------------------------

RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "joblib",
    "dill",
    "marshal",
    "shelve",
    "jsonpickle",
}
EXCEPTION = (
    "pipeline/execution/ray_executor.py",
    "ray.cloudpickle.register_pickle_by_value",
)  # Ray's own way to send a class to workers


def calls(path: Path) -> list[tuple[str, dict[str, str], int]]:
    """(what is called, its keyword arguments, how many positional ones) of each call in a file."""
    return [
        (ast.unparse(node.func), {one.arg or "": ast.unparse(one.value) for one in node.keywords}, len(node.args))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_no_file_of_the_product_loads_what_could_run(path):
    assert not roots(imports(path)) & RUNS_WHAT_IT_READS
    for name, options, _ in calls(path):
        last = name.rpartition(".")[2]
        assert name not in {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}
        assert "pickle" not in name or (str(path), name) == EXCEPTION
        assert name != "torch.load" or options.get("weights_only") == "True"
        assert name not in {"np.load", "numpy.load"} or options.get("allow_pickle") == "False"
        assert last not in {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all", "load_all"}
        assert name != "YAML" or options == {"typ": "'safe'", "pure": "True"}


def test_the_one_loader_of_yaml_is_a_safe_one():
    from ruamel.yaml.constructor import Constructor, SafeConstructor

    from wavmill.pipeline.job import yaml_text as yamltext

    assert issubclass(yamltext._Constructor, SafeConstructor) and not issubclass(yamltext._Constructor, Constructor)
    assert len(yamltext._Constructor.yaml_constructors) == 10 and not yamltext._Constructor.yaml_multi_constructors
    assert {str(path) for path in PRODUCT if roots(imports(path)) & {"yaml", "ruamel"}} == {"pipeline/job/yaml_text.py"}


WATCHED = """
import sys
found = []
sys.addaudithook(lambda event, given: found.append(given) if event == "pickle.find_class" else None)
sys.path[:0] = [{tests!r}, {root!r}]
{what}
print("found", found)
print("loaded", sorted(name for name in {{"dill", "joblib", "ray"}} if name in sys.modules))
"""
MILL = """
import io
from contextlib import redirect_stdout
from inline import words, run_inline
from wavmill.cluster import cli
from wavmill.model.quantization.kmeans import fit
from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.job.dataset_job import recipe_of
job = words({corpus!r}, {store!r}, "feature={{kind: mfcc}}")
rows = __import__("inline").rows_of(job, run_inline(job))
import numpy as np
frames = np.concatenate([np.array(clip, np.float32).reshape(-1, 39) for clip in rows["feature"].to_pylist()])
save_codebook({store!r} + "/book", Codebook(*fit(frames, 4, 0)[:1], recipe_of(job), {{}}))
tokens = words({corpus!r}, {store!r}, "feature={{kind: mfcc}}", "token={{kind: kmeans, codebook: %s/book}}" % {store!r})
tokens = tokens.model_copy(update={{"name": "tokens"}})
run_inline(tokens)
sys.argv = ["wavmill", "show", tokens.address]
try:
    with redirect_stdout(io.StringIO()):
        cli.main()
except SystemExit as stop:
    assert not stop.code
"""
LEARN = """
from pathlib import Path
from training import training
from wavmill.pipeline.training.checkpoints import read_latest
from wavmill.pipeline.training.loop import Learner
from wavmill.pipeline.training.pack_build import make_pack
from wavmill.pipeline.training.release import release
from wavmill.pipeline.trained_model import open_model
from wavmill.pipeline.workspace import TrainWorkspace
job = training(Path({data!r}), {store!r}, "train.epochs=1")
work = TrainWorkspace.of(job)
pack = make_pack(work.store, list(job.data), job.pack)
Learner(job, pack.fingerprint, work.run).learn()
Learner(job, pack.fingerprint, work.run).learn()
last = read_latest(work.store, work.run)
assert last.tensors()
said = release(work, pack, last)
for script in (False, True):
    open_model(said.address, script)
"""


def watched(what: str) -> dict[str, Any]:
    """What a program unpickled, and which libraries it had at its end."""
    code = WATCHED.format(tests=str(HELPERS), root=str(ROOT), what=what)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return {name: ast.literal_eval(rest) for name, rest in (line.split(" ", 1) for line in ended.stdout.splitlines())}


def test_a_pickle_is_noticed():
    assert watched("import pickle; pickle.loads(pickle.dumps(print))")["found"]


def test_milling_fitting_and_showing_unpickle_nothing(tmp_path, tone, wav):
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.wav").write_bytes(wav(tone(0.5, seed=number)))
    seen = watched(MILL.format(corpus=str(tmp_path / "in"), store=str(tmp_path / "store")))
    assert seen["found"] == [] and "dill" not in seen["loaded"]


def test_training_resuming_and_opening_a_model_unpickle_nothing(tmp_path):
    put_dataset(tmp_path / "data", clips=30)  # without a codebook
    seen = watched(LEARN.format(data=str(tmp_path / "data"), store=str(tmp_path / "store")))
    assert seen["found"] == [] and "dill" not in seen["loaded"]


# ---- hostile files ---------------------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def hostile(kind: str, ran: Path) -> bytes:
    """A file whose loading would run the payload, if it were loaded as what it is."""
    import io

    sink = io.BytesIO()
    if kind == "npy":
        np.save(sink, np.array([Payload(ran)], object), allow_pickle=True)
    elif kind == "pt":
        import torch

        torch.save({"centroids": Payload(ran)}, sink)
    else:
        sink.write(pickle.dumps({"centroids": Payload(ran)}))
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["npy", "pt", "pickle"])
def test_a_codebook_that_is_a_program_is_refused(kind, tmp_path):
    """Even when its description fits."""
    from safetensors import SafetensorError

    described = save_codebook(str(tmp_path / "book"), Codebook(np.zeros((2, 3), np.float32), {"feature": {}}, {}))
    data = hostile(kind, tmp_path / "ran")
    (tmp_path / "book" / "codebook.safetensors").write_bytes(data)
    (tmp_path / "book" / "codebook.json").write_text(json.dumps({**described.as_json(), "sha256": sha256(data)}))
    with pytest.raises((JobError, SafetensorError)):
        load_codebook(str(tmp_path / "book"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("kind", ["npy", "pt", "pickle"])
def test_a_model_that_is_a_program_is_refused(kind, script, tmp_path):
    """Its safetensors or its TorchScript, even when its description fits."""
    from safetensors import SafetensorError

    net = {"vocabulary": 8, "d": 8, "heads": 2, "layers": 1, "mixer": "max_state_super", "head_linear": False}
    config, data = json.dumps({"net": net}).encode(), hostile(kind, tmp_path / "ran")
    files = {"config.json": config, "model.safetensors": data, "model.pt": data}
    described = [{"path": path, "sha256": sha256(content)} for path, content in files.items()]
    files["model.json"] = json.dumps({"format": "wavmill-model-1", "files": described}).encode()
    for path, content in files.items():
        open_store(str(tmp_path / "v1")).put(path, content)
    with pytest.raises((JobError, SafetensorError, RuntimeError)):
        open_model(str(tmp_path / "v1"), script)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.system", "!!python/module:os"]
)
def test_a_job_file_cannot_call_anything(text, tmp_path):
    ran = tmp_path / "ran"
    for given in (f"name: {text.format(ran)}", f"name: a\nsource: {text.format(ran)}"):
        with pytest.raises(JobError, match="could not determine a constructor"):
            read_yaml(given, "job.yaml")
    with pytest.raises(JobError):
        parse_job(WORDS.format(path=tmp_path, store=tmp_path), "words.yaml", [f"name={text.format(ran)}"])
    assert not ran.exists()
