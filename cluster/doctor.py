"""doctor: check that this machine, the store and the cluster have what a run needs; yields findings."""

import os
import platform
import secrets
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

from wavmill.cluster.connect import token_path
from wavmill.cluster.listening import listening_below
from wavmill.cluster.printing import size
from wavmill.cluster.private_ray import SEVERAL_NODES
from wavmill.pipeline.errors import JobError, WavmillError
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store

SHM_BYTES = 1 << 30
LEFT = {
    "attempt": "attempts at shards that others were chosen for",
    "file": "temporary files",
    "upload": "uploads that never ended",
}
KEPT = {  # why they stay
    "attempt": "they stay, for a run may still choose them",
    "file": "nothing tells whether their writers live; when none does: find {} -name '.tmp-*' -delete",
    "upload": "they stay, for they are less than two days old",
}


class Finding(NamedTuple):
    good: bool
    name: str
    said: str


def examine(what: str | None, connect: Callable[[], Any], clean: bool = False) -> Iterator[Finding]:
    """Run all checks; a check that fails to run is a finding, too. ``clean`` removes leftovers."""
    if clean and what is None:
        raise JobError("doctor --clean wants to know where: wavmill doctor STORE --clean")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("ray", "pyarrow", "numpy", "torch"))
    yield Finding(True, "python", f"{platform.python_version()} on {platform.platform()}; {libraries}")
    yield from _tried("decoders", decoders)
    yield from _tried("sandbox", sandbox)
    yield from _tried("products", products)
    if what is not None:
        yield from _tried("job", lambda: job(what)) if what.endswith((".yaml", ".yml")) else ()
        yield from _tried("store", lambda: store(store_of(what)))
        yield from _tried("garbage", lambda: garbage(store_of(what), clean), needed=clean)
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    yield Finding(shm > SHM_BYTES, "memory", f"{shm / (1 << 30):.1f} GiB of shared memory for Ray's objects")
    yield from _tried("ray", lambda: cluster(connect(), what))
    yield from _tried("token", token)


def _tried(name: str, look: Callable[[], Iterator[Finding]], needed: bool = True) -> Iterator[Finding]:
    """The findings of a check; an exception is a bad finding, unless the thing checked is optional."""
    try:
        yield from look()
    except WavmillError as error:
        yield Finding(not needed, name, str(error))


def decoders() -> Iterator[Finding]:
    import av
    import soundfile

    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    aac = "aac" in av.codecs_available
    yield Finding(
        aac,
        "decoders",
        f"libsndfile {soundfile.__libsndfile_version__}, FFmpeg's libavcodec {ffmpeg}{'' if aac else ' without AAC'}",
    )


def sandbox() -> Iterator[Finding]:
    """What the decoding process can reach besides its sound; a run works either way."""
    from wavmill.pipeline.decoding.sandbox_process import Child

    child = Child()
    child.end()
    locks = child.locks
    under = [f"Landlock {locks.landlock}"] if locks.landlock else []
    under += ["a filter of system calls"] if locks.system_calls else []
    by = f"decoders are held by {' and '.join(under)}" if under else "this system has nothing to hold decoders by"
    can = "; ".join(locks.missing())
    opens = f"one that a bad file takes over can still: {can}" if can else "no files, no network, no other processes"
    yield Finding(True, "sandbox", f"{by}: {opens}")


def products() -> Iterator[Finding]:
    """The kind of matrix products that this machine uses (model/products.py)."""
    from wavmill.model.products import USUAL_SHAPES, way_for
    from wavmill.pipeline.execution.processors import cpu

    ways = {f"{inner}x{columns}": way_for(inner, columns) for inner, columns in USUAL_SHAPES}
    [way, *others] = dict.fromkeys(ways.values())
    said = ", ".join(f"{shape} by {way}" for shape, way in ways.items()) if others else f"by {way}"
    why = {
        "numpy": "numpy gives a frame the same bits wherever it stands",
        "torch": "numpy gives a frame other bits at other places, torch does not",
        "integers": "numpy gives a frame other bits at other places, sums of whole numbers do not",
    }
    yield Finding(True, "products", f"{said} ({why[max(ways.values(), key=list(why).index)]}); {cpu()}")


def job(path: str) -> Iterator[Finding]:
    from wavmill.cluster.load import load_making
    from wavmill.pipeline.job.dataset_job import resolve
    from wavmill.pipeline.job.preview import preview

    seen = preview(resolve(load_making(path, []), f"wavmill fit {path}"))
    yield Finding(True, "job", f"{path}: {seen.objects:,} {seen.unit}, {seen.done:,} of {seen.shards:,} shards done")


def store_of(what: str) -> Store:
    from wavmill.pipeline.job.load import load_job

    return open_store(load_job(what).store if what.endswith((".yaml", ".yml")) else what)


def store(there: Store) -> Iterator[Finding]:
    """Write, read, create once, list, remove: the operations that the commit protocol relies on."""
    key = f"_mill/doctor/{secrets.token_hex(8)}"
    try:
        there.put(f"{key}.put", b"first")
        there.put(f"{key}.put", b"again")
        good = there.read(f"{key}.put") == b"again"
        yield Finding(
            good, "store", f"{there.url} can be written and read" if good else f"{there.url} returned old bytes"
        )
        won, lost = there.create_once(f"{key}.once", b"mine"), there.create_once(f"{key}.once", b"theirs")
        good = won == lost == b"mine"
        yield Finding(
            good,
            "store",
            "an object is created once" if good else "it ignores If-None-Match: two drivers may both publish",
        )
        listed = sorted(entry.key for entry in there.list("_mill/doctor/"))
        yield Finding(f"{key}.once" in listed, "store", "what was written is listed at once")
    finally:
        for end in (".put", ".once"):
            there.remove(key + end)


def garbage(there: Store, clean: bool) -> Iterator[Finding]:
    """Leftovers of killed runs, and what may be done about them."""
    from wavmill.pipeline.protocol.garbage import leftovers, remove

    found: dict[tuple[str, bool], list[int]] = {}
    for one in list(leftovers(there)):
        if clean and one.may_go:
            remove(there, one)
        found.setdefault((one.what, one.may_go), []).append(one.bytes)
    for (what, may_go), sizes in sorted(found.items()):
        then = ("removed" if clean else "--clean removes them") if may_go else KEPT[what].format(shlex.quote(there.url))
        yield Finding(True, "garbage", f"{len(sizes):,} {LEFT[what]}, {size(sum(sizes))}: {then}")
    if not found:
        yield Finding(True, "garbage", "none: killed runs left nothing behind")


def cluster(ray: Any, what: str | None) -> Iterator[Finding]:
    """The cluster's resources; on a running cluster also whether each node can read what a job or store needs."""
    from wavmill.pipeline.execution.nodes import Needs, ask_nodes, started_here

    has = ray.cluster_resources()
    cpus, gpus, memory = has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0)
    nodes = sum(node["Alive"] for node in ray.nodes())
    said = f"{nodes} node{'s' * (nodes != 1)}, {cpus:g} CPUs, {gpus:g} GPUs, {memory / (1 << 30):.1f} GiB"
    yield Finding(cpus >= 1, "ray", said)
    if started_here():
        yield from private()
        return
    sees = f"sees what {what} needs" if what else "answers"
    for name, found in ask_nodes(_needs(what) if what else Needs()):
        text = "; ".join(map(str, found.problems)) or f"{sees}, {found.who}, with wavmill {found.version}"
        yield Finding(not found.problems, "node", f"{name}: {text}")


def private() -> Iterator[Finding]:
    """Whether other machines can reach the Ray that this process started; only Linux tells."""
    try:
        sockets = listening_below(os.getpid())
    except NotImplementedError:
        return
    reached = [socket for socket in sockets if not socket.loopback]
    if not reached:
        yield Finding(True, "doors", f"other machines cannot reach it: its {len(sockets)} ports are on loopback alone")
        return
    ports = ", ".join(f"{socket.program} at {socket.address} port {socket.port}" for socket in reached[:3])
    more = f" and {len(reached) - 3} more" if len(reached) > 3 else ""
    why = f"; unset {SEVERAL_NODES}, which asks for that" if SEVERAL_NODES in os.environ else ""
    yield Finding(False, "doors", f"other machines can reach it: {ports}{more} listen beyond loopback{why}")


def _needs(what: str) -> Any:
    """What the nodes are to check: all that a job names, or a store."""
    from wavmill.pipeline.execution.nodes import SAMPLED, Needs, needs_of
    from wavmill.pipeline.job.dataset_job import Job, resolve
    from wavmill.pipeline.job.load import load_job
    from wavmill.pipeline.protocol.listing import Listing
    from wavmill.pipeline.rows import PlannedObject
    from wavmill.pipeline.store.corpus import spread_rows

    if not what.endswith((".yaml", ".yml")):
        return Needs(what)
    job = load_job(what)
    if not isinstance(job, Job):
        return Needs(job.store)
    job = resolve(job, f"wavmill fit {what}")
    objects = cast(list[PlannedObject], spread_rows(next(iter(Listing(job.source, job.clip))), SAMPLED))
    return needs_of(job, objects, job.steps)


def token() -> Iterator[Finding]:
    """Ray writes its token readable by everybody on the machine."""
    path = token_path()
    if not path.exists():
        yield Finding(True, "token", "no Ray token on this machine: a local Ray makes its own")
        return
    open_to_others = stat.S_IMODE(path.stat().st_mode) & 0o077
    yield Finding(
        not open_to_others,
        "token",
        f"{path} is readable by others: chmod 600 {path}" if open_to_others else f"{path} is private",
    )
