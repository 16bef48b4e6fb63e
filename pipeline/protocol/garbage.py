"""Garbage: what killed runs left in a store, and which of it may be removed while other drivers and workers run.

An attempt A of a shard is left over when choices name attempts of that shard and not A. It may be removed when

1. an attempt B that a choice names comes before A by name, and
2. every plan of the fingerprint, under any name, has its choice.

Why nothing that is needed is removed, although drivers may be between listing attempts and writing their choice, and
workers between writing data and record: Every plan is created before the driver that follows it lists attempts,
there is one choice for each plan, and ``attempts_done`` takes the first attempt by name. We read the choices first and
list the plans afterwards. A plan that is listed has its choice by then (2): it is one that we have read, and it
does not name A. A plan that is not listed is created later, so its driver lists the attempts later still, when B's
record has long been there, and takes B or one before it; never A, whether or not A's record and data come and go. No
attempt that a choice names is ever removed, so B stays. Where a run has not published, or a later worker's attempt
comes before all that are named, the garbage stays, too: no time limit is used, as a paused process may resume.

S3 keeps the parts of an upload whose writer was killed. One that is older than two days by the server's clock may be
removed; if its writer still runs, that run stops, and the same command resumes it. A folder's temporary file may belong
to a running writer, so it is only reported.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from wavmill.pipeline.errors import Bug, Stopped
from wavmill.pipeline.store.base import Entry, Store
from wavmill.pipeline.store.folder import Folder
from wavmill.pipeline.store.versions import Claim, read_claim

ABANDONED_S = 2 * 86_400.0  # of an upload
PLAN = re.compile(r"_mill/plan/([^/]+)/([0-9a-f]{64})/([0-9]+)\.json")
ATTEMPT = re.compile(r".*/([0-9a-f]{32})\.([0-9a-f]{16})\.(?:parquet|rejects\.parquet|json)")

Shard = tuple[str, str]  # the fingerprint and the shard's key


class Leftover(NamedTuple):
    """An attempt's objects, the record first; an upload; or a temporary file. ``may_go``: it can be removed now."""

    what: Literal["attempt", "upload", "file"]
    keys: tuple[str, ...]
    bytes: int
    may_go: bool
    upload: str = ""


def leftovers(store: Store) -> Iterator[Leftover]:
    """Yield everything that is left over in a store. Stopped when a choice cannot be read: it might name anything."""
    choices = _choices(store)  # before the plans
    yield from _attempts(store, choices, _waiting(store, choices))
    if isinstance(store, Folder):
        yield from (Leftover("file", (one.key,), one.size, may_go=False) for one in store.unfinished())
    else:
        yield from _uploads(store, {choice.name for choice in choices})


def remove(store: Store, leftover: Leftover) -> None:
    """Remove a leftover; Bug when it may not be removed. Can be repeated, also after an interruption."""
    if not leftover.may_go:
        raise Bug(f"{leftover.keys} may not be removed")
    if leftover.what == "attempt":
        for key in leftover.keys:
            store.remove(key)
    else:
        _abort(store, leftover.keys[0], leftover.upload)


def _choices(store: Store) -> list[Claim]:
    found = []
    for entry in store.list("_mill/choice/"):
        try:
            found.append(read_claim(store, entry.key))
        except FileNotFoundError as error:
            raise Stopped(f"{store.url}/{entry.key} is gone: what it names is not known") from error
    return found


def _waiting(store: Store, choices: list[Claim]) -> set[str]:
    """The fingerprints with a plan that has no choice yet, and so may still choose any attempt."""
    made = {(choice.name, choice.fingerprint, choice.plans) for choice in choices}
    plans = (match for entry in store.list("_mill/plan/") if (match := PLAN.fullmatch(entry.key)))
    return {plan[2] for plan in plans if (plan[1], plan[2], int(plan[3])) not in made}


def _attempts(store: Store, choices: list[Claim], waiting: set[str]) -> Iterator[Leftover]:
    named: dict[Shard, set[str]] = defaultdict(set)
    for choice in choices:
        for _, shard, attempt in choice.shards:
            named[choice.fingerprint, shard].add(attempt)
    for fingerprint in sorted({fingerprint for fingerprint, _ in named}):
        found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for top in ("done", "out"):
            for entry in {one.key: one for one in store.list(f"_mill/{top}/{fingerprint}/")}.values():
                match = ATTEMPT.fullmatch(entry.key)
                if match and match[2] not in named.get((fingerprint, match[1]), {match[2]}):
                    found[match[1], match[2]].append(entry)
        for (shard, attempt), entries in sorted(found.items()):
            may_go = fingerprint not in waiting and min(named[fingerprint, shard]) < attempt
            keys = tuple(entry.key for entry in entries)
            yield Leftover("attempt", keys, sum(entry.size for entry in entries), may_go)


# ---- uploads: only below wavmill's own keys, as a bucket may hold those of others -----------------------------------


def _uploads(store: Any, names: set[str]) -> Iterator[Leftover]:
    from wavmill.pipeline.store.s3 import client
    from wavmill.pipeline.store.s3_answers import translate_s3_errors

    ours = re.compile("|".join(["_mill/.*", *(rf"{re.escape(name)}/v[0-9]+/.*" for name in names)]), re.DOTALL)
    with translate_s3_errors(store.url):
        for page in client().get_paginator("list_multipart_uploads").paginate(Bucket=store.bucket, Prefix=store.prefix):
            date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
            for found in page.get("Uploads", []):
                key = found["Key"][len(store.prefix) :]
                if ours.fullmatch(key):
                    age_s = (parsedate_to_datetime(date) - found["Initiated"]).total_seconds() if date else 0.0
                    upload = found["UploadId"]
                    yield Leftover("upload", (key,), _uploaded(store, key, upload), age_s > ABANDONED_S, upload)


def _uploaded(store: Any, key: str, upload: str) -> int:
    """The bytes of an upload's parts; 0 when it ended after it was listed."""
    from wavmill.pipeline.store.s3 import client

    with _unless_ended():
        pages = client().get_paginator("list_parts").paginate(**_at(store, key), UploadId=upload)
        return sum(part["Size"] for page in pages for part in page.get("Parts", []))
    return 0


def _abort(store: Any, key: str, upload: str) -> None:
    from wavmill.pipeline.store.s3 import client
    from wavmill.pipeline.store.s3_answers import translate_s3_errors

    with translate_s3_errors(f"{store.url}/{key}"), _unless_ended():
        client().abort_multipart_upload(**_at(store, key), UploadId=upload)


def _at(store: Any, key: str) -> dict[str, str]:
    return {"Bucket": store.bucket, "Key": store.prefix + key}


@contextmanager
def _unless_ended() -> Iterator[None]:
    """Ignore that an upload was completed or aborted in the meantime."""
    from botocore.exceptions import ClientError

    from wavmill.pipeline.store.s3_answers import code_of

    try:
        yield
    except ClientError as error:
        if code_of(error) not in {"NoSuchUpload", "404"}:
            raise
