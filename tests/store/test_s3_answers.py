"""Every operation of a store on S3, and whatever a server, a proxy or a captive portal answers to it: no traceback."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from wavmill.pipeline.errors import Changed, JobError, NotAllowed, NotThere, ObjectFault, Reject, Stopped, WavmillError
from wavmill.pipeline.store.base import Entry
from wavmill.pipeline.store.s3 import MULTIPART_BYTES, WINDOW_BYTES, Bucket, client
from wavmill.pipeline.store.s3_corpus import open_s3_object

HTML = b"<!DOCTYPE html><html><head><title>Sign in to the network</title></head><body>...</body></html>"
XML = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>said by the test</Message></Error>"
STAMP = "0f" * 16
PAGE = {"Content-Type": "text/html"}
Answer = tuple[int, dict[str, str], bytes]

REFUSING = (400, 401, 403, 405, 409, 411, 412, 416, 429, 500, 501, 502, 503, 504)
ANSWERS: dict[str, Answer] = {
    "200 html": (200, PAGE, HTML),
    "200 html with an etag": (200, {**PAGE, "ETag": '"abc-1"'}, HTML),
    "200 xml error": (200, {"Content-Type": "application/xml"}, XML % b"InternalError"),
    "200 other xml": (200, {"Content-Type": "application/xml"}, b"<?xml version='1.0'?><feed><entry>1</entry></feed>"),
    "200 json": (200, {"Content-Type": "application/json"}, b'{"error": "no"}'),
    "200 empty": (200, {}, b""),
    "204": (204, {}, b""),
    "206 html": (206, PAGE, HTML),
    "299 html": (299, PAGE, HTML),
    "301": (301, {}, XML % b"PermanentRedirect"),
    "302 to a portal": (302, {"Location": "http://127.0.0.1:9/login", **PAGE}, HTML),
    "307 without location": (307, {}, XML % b"TemporaryRedirect"),
    "404 html": (404, PAGE, HTML),
    "404 empty": (404, {}, b""),
    "cut": (200, {"ETag": f'"{STAMP}"', "Content-Length": "1000"}, b"only so much"),
    "no answer": (0, {}, b""),
    "no http": (0, {}, b"220 mail.example.org ESMTP\r\n\r\n"),
    **{f"{code} html": (code, PAGE, HTML) for code in REFUSING},
    **{
        f"{code} {name}": (code, {"Content-Type": "application/xml"}, XML % name.encode())
        for code, name in [
            (400, "ExpiredToken"), (403, "AccessDenied"), (403, "RequestTimeTooSkewed"), (403, "SignatureDoesNotMatch"),
            (403, "InvalidAccessKeyId"), (404, "NoSuchKey"), (404, "NoSuchBucket"), (400, "InvalidBucketName"),
            (409, "OperationAborted"), (409, "ConditionalRequestConflict"), (412, "PreconditionFailed"),
            (416, "InvalidRange"), (429, "SlowDown"), (500, "InternalError"), (501, "NotImplemented"),
            (503, "SlowDown"),
        ]
    },
}  # fmt: skip
REFUSALS = {"401 html", "403 html", "400 ExpiredToken", "403 AccessDenied", "403 RequestTimeTooSkewed"}
REFUSALS |= {"403 SignatureDoesNotMatch", "403 InvalidAccessKeyId"}


OPERATIONS = {
    "read": lambda bucket, file: bucket.read("key"),
    "read as listed": lambda bucket, file: bucket.read("key", STAMP),
    "window": lambda bucket, file: bucket.window("key", STAMP, 0, 10, 100),
    "open": lambda bucket, file: bucket.open("key").read(),
    "corpus": lambda bucket, file: open_s3_object(bucket, "key", 12, STAMP, 1 << 20),
    "put": lambda bucket, file: bucket.put("key", b"small"),
    "put_file": lambda bucket, file: bucket.put_file("key", file),
    "create_once": lambda bucket, file: bucket.create_once("key", b"mine"),
    "copy": lambda bucket, file: bucket.copy("key", "to"),
    "stat": lambda bucket, file: bucket.stat("key"),
    "list": lambda bucket, file: list(bucket.list()),
    "remove": lambda bucket, file: bucket.remove("key"),
}
READS = {"read", "read as listed", "window", "open", "corpus", "create_once", "stat", "copy"}
LISTED = {"corpus"}  # of a clip of the corpus: only there is a Reject a fate
BY_HEAD = {"open", "copy", "stat"}  # a question without a body: a name of the error cannot come with its answer


class Server(http.server.ThreadingHTTPServer):
    """Gives one answer to whatever it is asked."""

    answer: Answer = (200, {}, b"")
    to_puts: Answer | None = None  # another answer, if any
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def any(self) -> None:
        other = self.server.to_puts if self.command == "PUT" else None
        code, headers, body = other or self.server.answer
        if self.headers.get("Expect"):
            self.close_connection = True
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not code:
            self.wfile.write(body)
            self.close_connection = True
            return
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection |= "cut" in headers or headers.get("Content-Length") is not None


for verb in ("GET", "PUT", "HEAD", "POST", "DELETE"):
    setattr(Handler, f"do_{verb}", Handler.any)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def bucket(server, monkeypatch) -> Bucket:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)  # between tries
    return Bucket("s3://bucket/prefix")


@contextmanager
def told() -> Iterator[list[Exception]]:
    found: list[Exception] = []
    try:
        yield found
    except (WavmillError, Reject) as error:
        found.append(error)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_has_one_of_the_fates(operation, answer, bucket, server, tmp_path):
    """Nothing but wavmill's own errors; and nothing is taken for done, or for missing, that nobody said was."""
    server.answer = ANSWERS[answer]
    file = tmp_path / "file"
    file.write_bytes(b"x")
    gave: object = None
    with told() as errors:
        gave = OPERATIONS[operation](bucket, file)
    if not errors:
        assert done(operation, answer, gave), f"took {answer} for an answer: {gave!r}"
        return
    [error] = errors
    assert type(error) in fates(operation, answer), error
    text = str(error)
    if not isinstance(error, Reject):
        assert "s3://bucket/prefix" in text and "\n" not in text and len(text) < 700, text


@pytest.mark.parametrize("name", ["403 AccessDenied", "404 NoSuchBucket", "500 InternalError"])
def test_what_refuses_to_create_an_object_says_so_and_not_that_it_is_missing(name, bucket, server, monkeypatch):
    server.answer = ANSWERS["404 NoSuchKey"]
    monkeypatch.setattr(server, "to_puts", ANSWERS[name])
    with told() as errors:
        bucket.create_once("key", b"mine")
    wanted = {"403 AccessDenied": NotAllowed, "404 NoSuchBucket": JobError, "500 InternalError": Stopped}[name]
    assert [type(error) for error in errors] == [wanted]


def done(operation: str, answer: str, gave: object) -> bool:
    """Whether an answer may count as that the operation was done, or that there is nothing."""
    if operation == "stat":
        return answer.startswith("404") if gave is None else answer == "cut"
    if operation == "remove":
        return answer in {"204", "200 empty"}
    if answer in {"200 html with an etag", "cut"}:
        return operation in {"put", "put_file"} and answer == "cut"
    return operation == "corpus" and gave.reject is not None and answer in {"404 empty"}  # type: ignore[attr-defined]


def fates(operation: str, answer: str) -> set[type]:
    if answer in REFUSALS:
        return {Stopped} if operation in BY_HEAD and answer.startswith("400") else {NotAllowed}
    if answer in ("404 NoSuchBucket", "400 InvalidBucketName"):
        return {Stopped if answer.startswith("400") else NotThere} if operation in BY_HEAD else {JobError}
    if answer.startswith("404"):
        return {NotThere, ObjectFault, Stopped} if operation in READS else {Stopped}
    if operation in READS and (answer.startswith(("412", "416", "cut")) or "etag" in answer):
        fates = {Stopped, ObjectFault, Changed}
        return fates | {Reject} if operation in LISTED else fates
    return {Stopped}


@pytest.mark.parametrize("size", [100, WINDOW_BYTES + 1], ids=["whole", "in windows"])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("answer", ["412 html", "412 PreconditionFailed", "another"])
def test_an_object_replaced_while_it_is_read_stops_whoever_reads_it(answer, listed, size, bucket, server, monkeypatch):
    monkeypatch.setattr(bucket, "stat", lambda key: Entry(key, size, STAMP))
    server.answer = (200, {"ETag": '"other-2"'}, b"x" * size) if answer == "another" else ANSWERS[answer]
    with pytest.raises(Changed, match="replaced"):
        bucket.open("key", STAMP if listed else "").read()


@pytest.mark.parametrize("answer", ["412 html", "412 PreconditionFailed", "another"])
def test_where_a_clip_is_read_that_is_the_fate_of_the_clip(answer, bucket, server):
    server.answer = (200, {"ETag": '"other-2"'}, b"x" * 100) if answer == "another" else ANSWERS[answer]
    file = open_s3_object(bucket, "key", WINDOW_BYTES + 1, STAMP, whole_bytes=WINDOW_BYTES).file
    with pytest.raises(Reject) as error:
        file.read(100)
    assert error.value.reason == "changed"


def test_a_put_in_parts_is_refused_by_the_first_answer_that_is_not_s3s(bucket, server, tmp_path, monkeypatch):
    monkeypatch.setattr("wavmill.pipeline.store.s3.MULTIPART_BYTES", 5 << 20)
    big = tmp_path / "big"
    big.write_bytes(bytes(11 << 20))
    server.answer = ANSWERS["200 html"]
    with pytest.raises(Stopped, match="CreateMultipartUpload"):
        bucket.put_file("key", big)
    assert MULTIPART_BYTES > 5 << 20 and client()


@pytest.mark.parametrize(
    ("answer", "code"),
    [("200 html", 75), ("302 to a portal", 75), ("403 AccessDenied", 77), ("404 NoSuchBucket", 2), ("404 empty", 75)],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_verb_says_it_in_one_line_with_the_right_exit_code(
    answer, code, verb, bucket, server, tmp_path, monkeypatch, capfd
):
    from wavmill.cluster.cli import main

    server.answer = ANSWERS[answer]
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: a\nsource: {kind: files, path: 's3://bucket/prefix'}\nfeature: {kind: mel}\nstore: 's3://bucket/out'\n"
    )
    monkeypatch.setattr("sys.argv", ["wavmill", verb, str(job)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capfd.readouterr().err
    assert stop.value.code == code and "Traceback" not in said and "s3://bucket/" in said.replace("\n", ""), said


@pytest.mark.parametrize("answer", ANSWERS)
def test_show_and_doctor_say_every_answer_without_a_traceback(answer, bucket, server, monkeypatch, capfd):
    from wavmill.cluster.cli import main
    from wavmill.cluster.doctor import store

    server.answer = ANSWERS[answer]
    monkeypatch.setattr("sys.argv", ["wavmill", "show", "s3://bucket/out/a/v1"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capfd.readouterr().err
    assert stop.value.code in {75, 77, 2} and "Traceback" not in said and "s3://bucket/" in said.replace("\n", ""), said
    with pytest.raises(WavmillError):  # which doctor shows as a bad finding
        list(store(Bucket("s3://bucket/out")))
