"""What only an S3 store says against an object never becomes a reject while a new listing still has that object."""

import io
from typing import Any

import pytest
from botocore.exceptions import ClientError
from inline import digest, rows_of, run_inline, without_fence, words
from s3_server import bucket_on

from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.errors import ObjectFault, Stopped
from wavmill.pipeline.job.dataset_job import fingerprint
from wavmill.pipeline.protocol import publish as publish_module
from wavmill.pipeline.protocol.listing import Listing
from wavmill.pipeline.protocol.plan import make_plans
from wavmill.pipeline.protocol.records import attempts_done
from wavmill.pipeline.sources.faces import Faces
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.sources.manifest import Manifest
from wavmill.pipeline.store import objects as objects_module
from wavmill.pipeline.store import open_store, s3, s3_corpus
from wavmill.pipeline.store.corpus import open_object
from wavmill.pipeline.store.objects import OpenedSound, decode_objects
from wavmill.pipeline.workspace import Workspace


def half(answer: dict[str, Any], body: bytes) -> dict[str, Any]:
    """A stale body of half the length, with matching length and the etag of the whole one."""
    return {**answer, "Body": io.BytesIO(body[: len(body) // 2]), "ContentLength": len(body) // 2}


def others(answer: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {**answer, "Body": io.BytesIO(bytes(len(body)))}


def gone(answer: dict[str, Any], body: bytes) -> dict[str, Any]:
    raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "injected"}}, "GetObject")


def replaced(answer: dict[str, Any], body: bytes) -> dict[str, Any]:
    raise ClientError({"Error": {"Code": "PreconditionFailed", "Message": "injected"}}, "GetObject")


def other_etag(answer: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {**answer, "Body": io.BytesIO(body), "ETag": '"0123"'}


WRONG = [half, others, gone, replaced, other_etag]


class Client:
    """The SDK's client, some of whose answers to GET are spoilt: of keys that end like this, the first so many."""

    def __init__(self, honest: Any) -> None:
        self.honest, self.spoil, self.suffix, self.left = honest, others, "nothing", 0
        self.asked: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    def get_object(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        answer = self.honest.get_object(**asked)
        if not asked["Key"].endswith(self.suffix) or not self.left:
            return answer
        self.left -= 1
        return self.spoil(answer, answer["Body"].read())


@pytest.fixture
def client(moto, monkeypatch):
    """The client of this process; and a bucket on the server that it asks."""
    bucket = bucket_on(moto, monkeypatch)
    client = Client(s3.client())
    monkeypatch.setattr(s3, "client", lambda: client)
    client.bucket = bucket
    return client


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(objects_module, "parts_of_each", without_fence)
    monkeypatch.setattr(publish_module, "dataset_page", lambda *_: "a page")


@pytest.fixture
def corpus(client, few, quick):
    there = open_store(f"{client.bucket}/corpus")
    for path in few.iterdir():
        there.put(path.name, path.read_bytes())
    return f"{client.bucket}/corpus"


def result(job: Any) -> Any:
    dataset = run_inline(job)
    return dataset.counts, digest(rows_of(job, dataset))


@pytest.mark.parametrize("spoil", WRONG)
def test_a_store_that_contradicts_its_listing_once_costs_nothing(spoil, corpus, client, few, tmp_path):
    job = words(corpus, tmp_path / "store")
    make_plans(Workspace(job))
    client.spoil, client.suffix, client.left = spoil, "1.wav", 1
    assert result(job) == result(words(few, tmp_path / "undisturbed"))
    assert not client.left


@pytest.mark.parametrize("spoil", WRONG)
def test_a_store_that_goes_on_contradicting_stops_the_run_behind_all_else_and_nothing_is_rejected(
    spoil, corpus, client, few, tmp_path
):
    job = words(corpus, tmp_path / "store")
    [plan] = make_plans(Workspace(job))
    client.spoil, client.suffix, client.left = spoil, "1.wav", 1000
    with pytest.raises(Stopped, match=r"all is done but 1 shard with a fault: .*/corpus/1\.wav"):
        run_inline(job)
    assert len(attempts_done(open_store(job.store), fingerprint(job))) == plan.shards.num_rows - 1
    client.left = 0
    assert result(job) == result(words(few, tmp_path / "undisturbed"))


@pytest.mark.parametrize("after, reason", [("deleted", "missing"), ("replaced", "changed")])
def test_an_object_that_is_truly_gone_or_another_is_a_reject(after, reason, corpus, tmp_path):
    job, there = words(corpus, tmp_path / "store"), open_store(corpus)
    make_plans(Workspace(job))
    there.remove("1.wav") if after == "deleted" else there.put("1.wav", b"another")
    assert run_inline(job).counts.reasons == {reason: 1, "not_audio": 1}


@pytest.mark.parametrize("says_so", [True, False])
def test_a_body_that_is_not_its_etag_s_may_be_rejected_only_where_the_server_encrypts(
    says_so, corpus, client, monkeypatch
):
    honest = s3.md5
    monkeypatch.setattr(s3, "md5", lambda data, **options: honest(data + b"secret", **options))
    kms = {"ServerSideEncryption": "aws:kms"} if says_so else {}
    client.spoil = lambda answer, body: {**answer, **kms, "Body": io.BytesIO(body)}
    client.suffix, client.left = ".wav", 1000
    source = Files(path=corpus)
    [objects] = Listing(source, Clip())
    client.asked.clear()
    if says_so:
        errors = source.read(objects, Clip(), 16_000)["error"].to_pylist()
        assert errors == ["", "", "not_audio"] and len(client.asked) == 3
    else:
        with pytest.raises(ObjectFault, match=r"text\.wav"):
            source.read(objects, Clip(), 16_000)
        good = source.read(objects.slice(0, 2), Clip(), 16_000)["error"].to_pylist()
        assert good == ["", ""]


# ---- objects that are read window by window ----------------------------------------------------------------------


@pytest.fixture
def windows(client, tone, wav, monkeypatch):
    """Reads a sound of ten clips from a bucket in windows: (clip, error) of every row."""
    for module in (s3, s3_corpus):
        monkeypatch.setattr(module, "WINDOW_BYTES", 32 << 10)
    store, data = open_store(client.bucket), wav(tone(20.0))
    store.put("long.wav", data)
    entry = store.stat("long.wav")

    def read(during=lambda: None):
        left = [during]
        monkeypatch.setattr(objects_module, "heartbeat", lambda: left and left.pop()())
        file, reject, final_check = open_object(store, "long.wav", entry.size, entry.stamp, whole_bytes=1000)
        found = OpenedSound("long.wav", None, {}, file, reject=reject, final_check=final_check)
        table = decode_objects([("long.wav", [found])], (), Clip(max_s=2), 16_000)
        return table.select(["clip", "error"]).to_pylist()

    read.store = store
    client.asked.clear()
    return read


def test_every_window_asks_for_the_etag_that_was_listed(windows, client):
    assert [row["error"] for row in windows()] == [""] * 10
    assert len(client.asked) > 2
    assert {asked["IfMatch"] for asked in client.asked} == {f'"{windows.store.stat("long.wav").stamp}"'}


def test_a_server_that_knows_no_ranges_sends_the_same_sound(windows, client):
    honest = client.honest.get_object
    client.get_object = lambda **asked: honest(**{name: asked[name] for name in asked if name != "Range"})
    assert [row["error"] for row in windows()] == [""] * 10


@pytest.mark.parametrize("after, reason", [("deleted", "missing"), ("replaced", "changed")])
def test_an_object_that_goes_between_two_windows_leaves_one_reject_and_no_shorter_sound(after, reason, windows):
    store = windows.store
    during = {"deleted": lambda: store.remove("long.wav"), "replaced": lambda: store.put("long.wav", b"another")}
    assert windows(during[after]) == [{"clip": "long.wav", "error": reason}]


@pytest.mark.parametrize("spoil", [half, gone, replaced])
def test_a_store_that_contradicts_itself_between_two_windows_is_a_fault(spoil, windows, client):
    def during():
        client.spoil, client.suffix, client.left = spoil, "long.wav", 1000

    with pytest.raises(ObjectFault, match=r"long\.wav"):
        windows(during)


def test_a_sound_that_is_rejected_is_compared_with_its_etag_first(windows, client):
    """Of windows nothing says whether their bytes are right, but all of them together have the etag's MD5."""
    client.spoil, client.suffix, client.left = others, "long.wav", 1000
    with pytest.raises(ObjectFault, match="others than its etag's"):
        windows()


# ---- what a manifest and faces ask for ---------------------------------------------------------------------------


def test_a_head_that_finds_nothing_is_not_believed_while_a_listing_has_the_object(client, tone, wav, monkeypatch):
    store = open_store(client.bucket)
    store.put("a.wav", wav(tone(0.3)))
    store.put("m.csv", b"path\na.wav\nnever.wav\n")
    store.put("a.json", b'{"frames": 2, "face_list": [0, 0], "wav_path": "a.wav"}')
    honest = client.honest.head_object

    def head(**asked):
        if asked["Key"].endswith("a.wav"):
            raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")
        return honest(**asked)

    faces = Faces(path=client.bucket)
    [planned] = Listing(faces, Clip())
    client.head_object = head
    manifest = Manifest(path=f"{client.bucket}/m.csv")
    [objects] = Listing(manifest, Clip())
    assert manifest.read(objects, Clip(), 16_000)["error"].to_pylist() == ["", "missing"]
    assert faces.read(planned, Clip(), 16_000)["error"].to_pylist() == [""]
