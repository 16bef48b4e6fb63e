"""The commit protocol as a state space: every interleaving of its actors, with crashes and lost answers.

An actor is a generator that yields storage operations and gets their answers, so it reads as the code it stands for.
What it does next is a function of the answers it had; a state is the store, each actor's answers, and the faults left.
After every operation the invariants of a reader hold; whenever all drivers are gone, one clean driver must be able to
finish the dataset.
"""

from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from typing import Any, NamedTuple


class Op(NamedTuple):
    """list: the keys below a prefix; get: a value or None; put; create: unless there, the value now there; delete."""

    does: str
    key: str
    value: Any = None


Actor = Generator[Op, Any, None]
Kept = tuple[tuple[str, Any], ...]  # the store, sorted by key
SHARDS = ("s0", "s1")


# ---- what acts ----------------------------------------------------------------------------------------------------


def driver(name: str, shards: tuple[str, ...], wrong: str) -> Actor:
    """Mill the shards that have no record, choose, publish: pipeline/commit.py and pipeline/publish.py."""
    done = _attempts((yield Op("list", "done/")))
    if wrong == "deletes on recovery":
        for key in (yield Op("list", "out/")):
            if _shard(key) not in done:
                yield Op("delete", key)
    for shard in shards[:1] if wrong == "publishes with a shard missing" else shards:
        if shard not in done:
            yield from attempt(name, shard, wrong)
    if (choice := (yield Op("get", "choice"))) is None:
        done = _attempts((yield Op("list", "done/")))
        if len(done) < len(shards) and wrong != "publishes with a shard missing":
            return
        mine = tuple(sorted(done.items()))
        if wrong == "chooses by overwriting":
            yield Op("put", "choice", mine)
            choice = mine
        elif wrong == "chooses without asking who won":
            yield Op("create", "choice", mine)
            choice = mine
        elif wrong == "store without create-once":
            if (yield Op("get", "choice")) is None:
                yield Op("put", "choice", mine)
            choice = yield Op("get", "choice")
        else:
            choice = yield Op("create", "choice", mine)
    rows = []
    for shard, which in choice:
        rows.append((shard, (yield Op("get", f"out/{shard}.{which}"))))
    part = f"part.{name}" if wrong == "names parts by publisher" else "part"
    yield Op("put", part, tuple(rows))
    yield Op("put", "dataset", (part, choice))


def attempt(name: str, shard: str, wrong: str) -> Actor:
    """One execution of a shard: data, then record, under a name that nobody else has."""
    data, record = Op("put", f"out/{shard}.{name}", f"{shard} by {name}"), Op("put", f"done/{shard}.{name}")
    first, second = (record, data) if wrong == "records before the data" else (data, record)
    yield first
    yield second


def collector(name: str, shards: tuple[str, ...], wrong: str) -> Actor:
    """Remove the attempts that were not chosen; none before there is a choice."""
    choice = yield Op("get", "choice")
    if choice is None and wrong != "collects before the choice":
        return
    recorded = {key.removeprefix("done/") for key in (yield Op("list", "done/"))}
    for key in (yield Op("list", "out/")):
        which = key.removeprefix("out/")
        if which not in {f"{shard}.{one}" for shard, one in choice} if choice else which not in recorded:
            yield Op("delete", key)


def _attempts(keys: tuple[str, ...]) -> dict[str, str]:
    """The first attempt by name of each shard that has a record."""
    found: dict[str, str] = {}
    for key in keys:
        found.setdefault(_shard(key), key.rsplit(".", 1)[1])
    return found


def _shard(key: str) -> str:
    return key.split("/")[1].split(".")[0]


# ---- what may happen ----------------------------------------------------------------------------------------------


class Cast(NamedTuple):
    """Who takes part, by name, and what is wrong with them all: "" for the protocol as it is."""

    actors: tuple[tuple[str, Callable[[str, tuple[str, ...], str], Actor]], ...]
    shards: tuple[str, ...]
    wrong: str = ""


GONE = None  # an actor that ended or was killed


def applied(kept: Kept, op: Op) -> tuple[Kept, Any]:
    """The store after an operation, and its answer."""
    store = dict(kept)
    if op.does == "list":
        return kept, tuple(key for key in store if key.startswith(op.key))
    if op.does == "get":
        return kept, store.get(op.key)
    if op.does == "delete":
        store.pop(op.key, None)
    elif op.does == "put" or op.key not in store:
        store[op.key] = op.value
    return tuple(sorted(store.items())), store.get(op.key)


@lru_cache(maxsize=1 << 20)
def next_op(cast: Cast, number: int, answers: tuple[Any, ...]) -> Op | None:
    """What an actor does after these answers; None when it is done."""
    name, acts = cast.actors[number]
    actor = acts(name, cast.shards, cast.wrong)
    try:
        op = next(actor)
        for answer in answers:
            op = actor.send(answer)
    except StopIteration:
        return None
    return op


def explored(cast: Cast, faults: int) -> tuple[str, int]:
    """The first thing that goes wrong ("" when nothing can), and how many states were seen: all there are, if nothing.

    Every interleaving, with up to so many faults: a crash before or after an operation takes effect, or an answer
    that is lost, after which the client sends the same operation again.
    """
    start: tuple[Any, ...] = ((), ((),) * len(cast.actors), faults)
    states, waiting = {start}, [start]
    drivers = [number for number, (_, acts) in enumerate(cast.actors) if acts is driver]
    while waiting:
        kept, everyone, left = waiting.pop()
        for number, answers in enumerate(everyone):
            if answers is GONE:
                continue
            for after, then, spent in outcomes(cast, number, kept, answers, left):
                if wrong := broken(cast, kept, after):
                    return wrong, len(states)
                state = after, (*everyone[:number], then, *everyone[number + 1 :]), left - spent
                if state not in states:
                    states.add(state)
                    waiting.append(state)
        if all(everyone[number] is GONE for number in drivers) and (wrong := unfinished(cast, kept)):
            return wrong, len(states)
    return "", len(states)


def outcomes(
    cast: Cast, number: int, kept: Kept, answers: tuple[Any, ...], left: int
) -> Iterator[tuple[Kept, tuple[Any, ...] | None, int]]:
    """The store, the actor's answers (GONE when it is), and the faults spent, of all that its next move may be."""
    op = next_op(cast, number, answers)
    if op is None:
        yield kept, GONE, 0
        return
    after, answer = applied(kept, op)
    yield after, (*answers, answer), 0
    if left:
        yield kept, GONE, 1
        yield after, GONE, 1
        if op.does in ("put", "create", "delete"):
            again, answer = applied(after, op)
            yield again, (*answers, answer), 1


def broken(cast: Cast, before: Kept, after: Kept) -> str:
    """What a reader could see go wrong, or ""."""
    if before == after:
        return ""
    old, new = dict(before), dict(after)
    for key in ("choice", "dataset", *(key for key in old if key.startswith("part"))):
        if key in old and old[key] != new.get(key):
            return f"{key.split('.')[0]} changed or vanished"
    for key in new:
        if key.startswith("done/") and "choice" not in new and key.replace("done/", "out/") not in new:
            return "a record without its data"  # after the choice nobody reads those that were not chosen
    if "dataset" in new:
        part, choice = new["dataset"]
        if {shard for shard, _ in choice} != set(cast.shards):
            return "a dataset without a shard"
        if sum(key.startswith("part") for key in new) != 1:
            return "a clip twice among the parts"
        if new[part] != tuple((shard, f"{shard} by {which}") for shard, which in choice):
            return "a part that is not what was chosen"
    return ""


def unfinished(cast: Cast, kept: Kept) -> str:
    """What is wrong when one more driver starts, alone and undisturbed, or ""."""
    alone = cast._replace(actors=(("again", driver),))
    answers: tuple[Any, ...] = ()
    while (op := next_op(alone, 0, answers)) is not None:
        after, answer = applied(kept, op)
        if wrong := broken(cast, kept, after):
            return f"run again: {wrong}"
        kept, answers = after, (*answers, answer)
    return "" if "dataset" in dict(kept) else "run again: no dataset"
