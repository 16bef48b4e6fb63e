"""Check on every node of a cluster that it can read the corpus, the store, the weights and the codebook.

Without this check a path that is missing on one node would end as rejects in a published dataset.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

from wavmill.pipeline.contracts import Source
from wavmill.pipeline.errors import JobError, NotAllowed, ObjectFault, Stopped, WavmillError
from wavmill.pipeline.execution.watchdog import BoardHandle
from wavmill.pipeline.job.choice import Choice
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.rows import PlannedObject
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import join
from wavmill.pipeline.store.corpus import stat_object
from wavmill.pipeline.store.folder import Folder

ANSWER_S = 120.0  # for a node to start a process and read a few files
SAMPLED = 8  # objects of the corpus that each node checks
PROBES = "_mill/ask"  # the prefix of the objects by which nodes recognise the driver's store


@dataclass(frozen=True)
class Needs:
    """What to check on a node; it is pickled and sent there. Without a ``store`` nothing is written.

    ``objects``: rows of a plan (path, size, stamp) that are unchanged as seen from the driver.
    ``looks``: functions that raise a WavmillError when the node cannot read something.
    """

    store: str = ""
    source: Source | None = None
    objects: Sequence[PlannedObject] = ()
    looks: Sequence[Callable[[], object]] = ()


class Answer(NamedTuple):
    """The result on a node: its user, its version of wavmill, and the problems found."""

    who: str
    version: str
    problems: list[WavmillError]


def needs_of(job: Job, objects: Sequence[PlannedObject], choices: Sequence[Choice]) -> Needs:
    """What the workers of a job need; objects that have changed since they were listed are left out."""
    there = [row for row in objects if job.source.has(row)] if job.source.gives == "audio" else []
    looks = [choice.check_here for choice in (job.source, *choices) if choice is not None]
    return Needs(job.store, job.source, there, looks)


def seen_by_driver(driver: BoardHandle, source: Source, objects: Sequence[PlannedObject]) -> list[str]:
    """The paths of the objects that are unchanged as seen from the driver's node. ``driver``: its Board."""
    import ray

    yes = ray.get(driver.as_listed.remote(source, objects))
    return [row["path"] for row, seen in zip(objects, yes, strict=True) if seen]


def answer(needs: Needs, probe: str, text: bytes) -> Answer:
    """Runs on a node: make all checks and collect the problems. The driver has put ``text`` at the key ``probe``."""
    problems: list[WavmillError] = []
    checks: list[Callable[[], object]] = [partial(_check_objects, needs), *needs.looks]
    if needs.store:
        checks.insert(0, partial(_check_store, needs.store, probe, text))
    for check in checks:
        with _collected(problems):
            check()
    return Answer(_who(needs), version("wavmill"), problems)


def check_nodes(needs: Needs) -> None:
    """Check every node. Raises, with all problems by node: JobError when something is missing, NotAllowed when
    credentials or permissions are wrong, Stopped when a node does not answer.

    A private cluster that this process started is on this machine and is not checked.
    """
    if started_here():
        return
    problems = [
        (f"{name}, {found.who}" if found.who else name, error)
        for name, found in ask_nodes(needs)
        for error in found.problems
    ]
    if not problems:
        return
    kinds = [type(error) for _, error in problems]
    kind = next((one for one in (JobError, NotAllowed) if one in kinds), Stopped)
    text = "".join(f"\n  {name}: {error}" for name, error in problems)
    raise kind(f"not every node of the cluster can do this job; nothing was started:{text}")


def ask_nodes(needs: Needs) -> list[tuple[str, Answer]]:
    """The answer of every live node, by its name; a Stopped for a node that gives none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe, text = f"{PROBES}/{secrets.token_hex(8)}", secrets.token_hex(16).encode()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with _written(needs.store, probe, text):
        asked = {
            node["NodeID"]: ray.remote(num_cpus=0, max_retries=0)(answer)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(needs, probe, text)
            for node in nodes
        }
        ready, _ = ray.wait([*asked.values()], num_returns=len(asked), timeout=ANSWER_S)
        found = [(name_of(node), _answered(asked[node["NodeID"]], ready)) for node in nodes]
    mine = version("wavmill")
    for _, one in found:
        if one.version not in (mine, ""):
            one.problems.append(JobError(f"wavmill {one.version} is installed there, and {mine} here; install one"))
    return found


@contextmanager
def _written(url: str, probe: str, text: bytes) -> Iterator[None]:
    if not url:
        yield
        return
    store = open_store(url)
    store.put(probe, text)
    try:
        yield
    finally:
        store.remove(probe)


def started_here() -> bool:
    """Whether there is no cluster, or only a private one that this process started."""
    from ray._private import worker

    node = worker._global_node  # nothing public says it
    return node is None or bool(node.is_head())


def name_of(node: Mapping[str, object]) -> str:
    """How messages name a node of ``ray.nodes()``."""
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {str(node['NodeID'])[:8]})"


def alive() -> set[str]:
    """The names of the cluster's live nodes; none when its head does not answer."""
    import ray

    try:
        return {name_of(node) for node in ray.nodes() if node["Alive"]}
    except ray.exceptions.RayError:
        return set()


def lost_since(before: set[str]) -> list[str]:
    """The names of the nodes that were alive ``before`` and are not now; none when the head does not answer."""
    now = alive()
    return sorted(before - now) if now else []


def _answered(asked: Any, ready: Sequence[Any]) -> Answer:
    import ray

    if asked not in ready:
        return Answer("", "", [Stopped(f"no answer within {ANSWER_S:g} s; run the same command again")])
    try:
        found: Answer = ray.get(asked)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        last = lines[-1] if lines else type(error).__name__
        if "ModuleNotFoundError" in last:
            return Answer("", "", [JobError(f"wavmill is not installed there: {last}")])
        return Answer("", "", [Stopped(f"it could not be asked: {type(error).__name__}: {last}")])
    return found


@contextmanager
def _collected(problems: list[WavmillError]) -> Iterator[None]:
    try:
        yield
    except ObjectFault:
        pass  # the run will raise it again, after everything else is done
    except WavmillError as error:
        problems.append(error)


def _check_store(url: str, probe: str, text: bytes) -> None:
    """Raise an error unless this node can read and write the driver's store."""
    store = open_store(url)
    try:
        found = store.read(probe)
    except FileNotFoundError:
        found = b""
    if found != text:
        raise JobError(f"store: {url} is not the store that the driver sees; give one that all nodes share")
    own = f"{probe}.{secrets.token_hex(4)}"
    store.put(own, b"")
    store.remove(own)


def _check_objects(needs: Needs) -> None:
    """NotAllowed or JobError when this node does not find the objects as they were listed."""
    if (source := needs.source) is None:
        return
    places = [source.place_of(row["path"]) for row in needs.objects if not source.has(row)]
    wrong = [place for place in places if place is not None]
    for store, key in wrong:
        entry = stat_object(store, key)  # raises NotAllowed for wrong credentials
        if entry is not None and entry.size < 0:
            raise NotAllowed(f"source.path: {join(store.url, key)} cannot be read ({entry.stamp})")
    if wrong:
        store, key = wrong[0]
        many = f"{len(wrong)} of {len(needs.objects)} objects that were tried"
        raise JobError(f"source.path: {many} are not there as they were listed: {join(store.url, key)}")


def _who(needs: Needs) -> str:
    """The user of this process, and its S3 access key's ID; no secrets."""
    from getpass import getuser

    try:
        user = f"as {getuser()}"
    except (KeyError, OSError):
        user = f"as uid {os.getuid()}"
    if not needs.store or isinstance(open_store(needs.store), Folder):
        return user
    from wavmill.pipeline.store.s3_identity import access_key

    return f"{user}, on S3 {access_key()}"
