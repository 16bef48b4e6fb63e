"""The record of a shard: counts, the keys and hashes of its rows. Writing it is the commit.

_mill/done/<F>/<k>/<K>.<A>.json    F the job's fingerprint, K the shard's key, A a random attempt id
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from wavmill.pipeline.at_rest import AtRest, Sealed
from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.store.base import Store

PREFIXES = "0123456789abcdef"


class StoredRows(AtRest):
    """A Parquet file of a shard."""

    key: str
    sha256: str
    bytes: int
    rows: int


class NoticedClips(AtRest):
    """The number of a shard's clips with a notice, and [clip, source] of the first few."""

    clips: int
    named: list[tuple[str, str]]


class Record(Sealed):
    """The result of an attempt at a shard. Fields with a default are missing in records of some earlier versions."""

    shard: str
    attempt: str
    fingerprint: str
    found: int  # clips: those done and those rejected
    done: int
    rejected: int
    seconds: float  # of the clips that are done
    reasons: dict[str, int]  # of rejects: how many of each
    notices: dict[str, NoticedClips] = Field({})
    data: StoredRows | None  # None without a clip that is done
    rejects: StoredRows | None
    host: str
    at: str  # UTC, ISO 8601
    processors: dict[str, str] = Field({})  # stage -> kind of processor
    spent_s: dict[str, float] = Field({})  # stage -> seconds on the wall
    versions: dict[str, str] = Field({})  # of what made the numbers


def record_key(job_fingerprint: str, shard: str, attempt: str) -> str:
    return f"_mill/done/{job_fingerprint}/{shard[0]}/{shard}.{attempt}.json"


def attempts_done(store: Store, job_fingerprint: str) -> dict[str, str]:
    """Every shard with a record -> the first of its attempts by name. Lists 16 prefixes in parallel, reads nothing."""

    def one(prefix: str) -> list[tuple[str, str]]:
        keys = (entry.key for entry in store.list(f"_mill/done/{job_fingerprint}/{prefix}/"))
        return [(name[0], name[1]) for key in keys if len(name := key.rsplit("/", 1)[1].split(".")) == 3]

    first: dict[str, str] = {}
    with ThreadPoolExecutor(len(PREFIXES)) as pool:
        for shard, attempt in sorted(pair for pairs in pool.map(one, PREFIXES) for pair in pairs):
            first.setdefault(shard, attempt)
    return first


def read_records(store: Store, job_fingerprint: str, chosen: Iterable[tuple[str, str]]) -> list[Record]:
    """The records of (shard, attempt) pairs, in their order, each checked against its own hash."""

    def one(pair: tuple[str, str]) -> Record:
        key = record_key(job_fingerprint, *pair)
        try:
            return Record.read(store.read(key))
        except ValueError as error:
            raise Stopped(f"{store.url}/{key} is damaged: {error}") from error

    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(one, chosen))
