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
    """list: the keys below a prefix; read: the objects below one; get: a value or None; put; create: unless there, the
    value now there; delete. What is read object by object never changes, so that to read it at once is the same."""

    does: str
    key: str
    value: Any = None


Actor = Generator[Op, Any, None]
Kept = tuple[tuple[str, Any], ...]  # the store, sorted by key
SHARDS = ("s0", "s1")


# ---- what acts ----------------------------------------------------------------------------------------------------


def driver(name: str, shards: tuple[str, ...], wrong: str, dataset: str = "1") -> Actor:
    """Plan, mill the shards that have no record, choose, publish: pipeline/protocol/{plan,commit,publish}.py."""
    if dataset != "1":  # which was planned before this history begins
        yield Op("create", f"plan/{dataset}")
    done = _attempts((yield Op("list", "done/")))
    if wrong == "deletes on recovery":
        for key in (yield Op("list", "out/")):
            if _shard(key) not in done:
                yield Op("delete", key)
    for shard in shards[:1] if wrong == "publishes with a shard missing" else shards:
        if shard not in done:
            yield from attempt(name, shard, wrong)
    if (choice := (yield Op("get", f"choice/{dataset}"))) is None:
        done = _attempts((yield Op("list", "done/")))
        if len(done) < len(shards) and wrong != "publishes with a shard missing":
            return
        mine = tuple(sorted(done.items()))
        if wrong == "chooses by overwriting":
            yield Op("put", f"choice/{dataset}", mine)
            choice = mine
        elif wrong == "chooses without asking who won":
            yield Op("create", f"choice/{dataset}", mine)
            choice = mine
        elif wrong == "store without create-once":
            if (yield Op("get", f"choice/{dataset}")) is None:
                yield Op("put", f"choice/{dataset}", mine)
            choice = yield Op("get", f"choice/{dataset}")
        else:
            choice = yield Op("create", f"choice/{dataset}", mine)
    rows = []
    for shard, which in choice:
        rows.append((shard, (yield Op("get", f"out/{shard}.{which}"))))
    part = f"part/{dataset}.{name}" if wrong == "names parts by publisher" else f"part/{dataset}"
    yield Op("put", part, tuple(rows))
    yield Op("put", f"dataset/{dataset}", (part, choice))


def other(name: str, shards: tuple[str, ...], wrong: str) -> Actor:
    """A driver of the same shards for another dataset: under another name, or of the next version."""
    yield from driver(name, shards, wrong, "2")


def attempt(name: str, shard: str, wrong: str) -> Actor:
    """One execution of a shard: data, then record, under a name that nobody else has."""
    data, record = Op("put", f"out/{shard}.{name}", f"{shard} by {name}"), Op("put", f"done/{shard}.{name}")
    first, second = (record, data) if wrong == "records before the data" else (data, record)
    yield first
    yield second


def collector(name: str, shards: tuple[str, ...], wrong: str) -> Actor:
    """Remove the attempts that may go: pipeline/protocol/garbage.py."""
    plans = (yield Op("list", "plan/")) if wrong == "collects by plans read before the choices" else ()
    choices = dict((yield Op("read", "choice/")))
    plans = plans or (yield Op("list", "plan/"))
    waiting = {*map(_last, plans)} - {*map(_last, choices)}
    if waiting and wrong not in ("collects while a job may choose", "collects before the choice"):
        return
    named: dict[str, set[str]] = {}
    for shard, which in (pair for choice in choices.values() for pair in choice):
        named.setdefault(shard, set()).add(which)
    recorded, found = (yield Op("list", "done/")), (yield Op("list", "out/"))
    for one in sorted({_last(key) for key in recorded + found}):
        shard, which = one.split(".")
        chosen = named.get(shard, set())
        if wrong == "collects before the choice":
            may_go = f"done/{one}" not in recorded
        elif wrong == "collects what comes first":
            may_go = bool(chosen) and which not in chosen
        elif wrong == "collects what another dataset is made of":
            may_go = bool(chosen) and which != min(chosen)
        else:
            may_go = bool(chosen) and which not in chosen and min(chosen) < which
        for key in (f"done/{one}", f"out/{one}"):
            if may_go and key in recorded + found:
                yield Op("delete", key)


def _attempts(keys: tuple[str, ...]) -> dict[str, str]:
    """The first attempt by name of each shard that has a record."""
    found: dict[str, str] = {}
    for key in keys:
        found.setdefault(_shard(key), key.rsplit(".", 1)[1])
    return found


def _shard(key: str) -> str:
    return _last(key).split(".")[0]


def _last(key: str) -> str:
    return key.split("/")[1]


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
    if op.does == "read":
        return kept, tuple(pair for pair in kept if pair[0].startswith(op.key))
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
    start: tuple[Any, ...] = ((("plan/1", None),), ((),) * len(cast.actors), faults)
    states, waiting = {start}, [start]
    drivers = [number for number, (_, acts) in enumerate(cast.actors) if acts in (driver, other)]
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


@lru_cache(maxsize=1 << 16)
def broken(cast: Cast, before: Kept, after: Kept) -> str:
    """What a reader could see go wrong, or ""."""
    if before == after:
        return ""
    old, new = dict(before), dict(after)
    for key, value in old.items():
        if not key.startswith(("out/", "done/")) and value != new.get(key):
            return f"{key.split('/')[0]} changed or vanished"
    for shard, which in _attempts(tuple(key for key in new if key.startswith("done/"))).items():
        if f"out/{shard}.{which}" not in new:  # of the one that the next choice would name
            return "a record without its data"
    for key, value in new.items():
        if key.startswith("choice/"):
            for shard, which in value:
                if not {f"done/{shard}.{which}", f"out/{shard}.{which}"} <= new.keys():
                    return "a choice of what is gone"
        if key.startswith("dataset/"):
            part, choice = value
            if {shard for shard, _ in choice} != set(cast.shards):
                return "a dataset without a shard"
            if sum(one.startswith(f"part/{_last(key)}") for one in new) != 1:
                return "a clip twice among the parts"
            if new[part] != tuple((shard, f"{shard} by {which}") for shard, which in choice):
                return "a part that is not what was chosen"
    return ""


def unfinished(cast: Cast, kept: Kept) -> str:
    """What is wrong when one more driver of each dataset starts, alone and undisturbed, or ""."""
    for acts in {acts for _, acts in cast.actors} & {driver, other}:
        alone = cast._replace(actors=(("again", acts),))
        answers: tuple[Any, ...] = ()
        while (op := next_op(alone, 0, answers)) is not None:
            after, answer = applied(kept, op)
            if wrong := broken(cast, kept, after):
                return f"run again: {wrong}"
            kept, answers = after, (*answers, answer)
        if f"dataset/{1 if acts is driver else 2}" not in dict(kept):
            return "run again: no dataset"
    return ""
