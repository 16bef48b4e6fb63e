"""Mutation testing: a sample of small changes of the product, each in a copy, against the tests that execute its line.

python tests/mutants/mutants.py [--workers N] [--sample N]      as `make mutants` does

A mutant is killed when a test fails, or takes much longer than before. Those that survive are named in survivors.toml,
each with the reason why it may: the command fails when one is not, or when they are more than a tenth of the sample.
Results are kept in .mutants/, and a second call goes on: a killed mutant is tried again when its file changes, one that
survived when any test does, too.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

from coverage_map import KEPT, ROOT, Map, copied, digest, load, run_pytest, targets
from mutations import Mutant, mutants_of

SEED = 20261127
SAMPLE = 200
MOST_SURVIVORS = 0.1
TESTS_S = 45.0  # of tests for a mutant, as they took when they were measured; the quickest come first
READS_DEFAULTS = (
    "tests/product/test_documents.py::test_the_job_reference_is_what_the_models_say"  # executes no line of them
)
RESULTS = KEPT / "results.jsonl"
SURVIVORS = Path(__file__).with_name("survivors.toml")


def sample(many: int) -> list[Mutant]:
    """Those with the smallest hashes, so that a change of one file leaves the choice among the others as it is."""
    every = [mutant for path in targets() for mutant in mutants_of(path, (ROOT / path).read_bytes())]
    print(f"{many} of {len(every):,} mutants, seed {SEED}", flush=True)
    return sorted(every, key=lambda mutant: hashlib.sha256(f"{SEED} {mutant.name}".encode()).hexdigest())[:many]


def tests_of(mutant: Mutant, made: Map) -> list[str]:
    """The tests that execute its statement, the quickest first, of TESTS_S in all. Of what is executed when its module
    is imported: first those that execute a line with the name that is set there, then any that execute its file."""
    if not mutant.top:
        first, last = mutant.lines
        at = [(mutant.path, line) for line in range(first, last + 1)]
        tests = _quickest(
            set().union(*(some.get(one, ()) for one in at for some in (made.lines, made.collected))), made
        )
    else:
        file = {line: found for (path, line), found in made.lines.items() if path == mutant.path}
        found = _naming(mutant, made) | ({READS_DEFAULTS} & made.seconds.keys())
        tests = [*_quickest(found, made), *_quickest(set().union(*file.values()) - found, made)]
    ends = accumulate(made.seconds[test] for test in tests)
    return [test for number, (test, end) in enumerate(zip(tests, ends, strict=True)) if end <= TESTS_S or not number]


def _naming(mutant: Mutant, made: Map) -> set[str]:
    name = (ROOT / mutant.path).read_text().splitlines()[mutant.lines[0] - 1].strip().partition(" ")[0].strip(":")
    found: set[str] = set()
    if name.isidentifier():
        for (path, line), tests in made.lines.items():
            text = (ROOT / path).read_text().splitlines()
            if line <= len(text) and name in text[line - 1]:
                found |= tests
    return found


def _quickest(tests: Iterable[str], made: Map) -> list[str]:
    """By time; those that share a slow fixture follow one another, so that it is made once."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for test in sorted(tests, key=lambda test: (made.seconds[test], test)):
        slow = made.fixtures[test]
        groups.setdefault((test.partition("::")[0], *slow) if slow else (test,), []).append(test)
    return [test for group in groups.values() for test in group]


class Results:
    """What was found, by mutant; each line of the file counts until a later one says otherwise."""

    def __init__(self, file: Path) -> None:
        self.file, self.lock = file, threading.Lock()
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        self.of = {line["mutant"]: line for line in lines}

    def add(self, mutant: Mutant, tests: list[str], top: Path, **facts: Any) -> None:
        """What the tests in a copy found."""
        line = {"mutant": mutant.name, "file": digest([top / mutant.path]), "tests": _digest_of(tests, top), **facts}
        with self.lock:
            self.of[mutant.name] = line
            self.file.parent.mkdir(exist_ok=True)
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def known(self, mutant: Mutant, tests: list[str]) -> bool:
        line = self.of.get(mutant.name)
        if line is None or line["file"] != digest([ROOT / mutant.path]):
            return False
        return bool(line["result"] == "killed" or line["tests"] == _digest_of(tests, ROOT))


def _digest_of(tests: list[str], top: Path) -> str:
    """It changes with the tests of a mutant, and when one of their files does."""
    files = sorted({test.partition("::")[0] for test in tests})
    return digest(top / file for file in files) + hashlib.sha256(" ".join(sorted(tests)).encode()).hexdigest()[:8]


class Bench:
    """A copy of the checkout in which one mutant after another is put, tried and taken out."""

    def __init__(self) -> None:
        self.top = copied()
        self.changes = 0

    def write(self, path: str, source: bytes) -> None:
        """With a time of its own: Python compares that, in whole seconds, to see whether a compiled file is stale."""
        self.changes += 1
        (self.top / path).write_bytes(source)
        os.utime(self.top / path, (1_000_000_000 + self.changes,) * 2)

    def run(self, tests: list[str], made: Map, *options: str) -> tuple[int, list[str], str]:
        """Exit code of pytest, which tests failed, or the one that it ended in, and what it printed."""
        listed = self.top / ".out/tests.json"
        listed.parent.mkdir(exist_ok=True)
        for old in listed.parent.glob("tests.*"):
            old.unlink()
        listed.write_text(json.dumps([(test, made.seconds[test]) for test in tests]))
        longest = 60 + 5 * sum(made.seconds[test] for test in tests)
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        code, said = run_pytest(self.top, longest, *options, *files, WAVMILL_MUTANTS_RUN=str(listed))
        failed, current = listed.with_suffix(".failed"), listed.with_suffix(".current")
        found = failed.read_text().splitlines() if failed.exists() else []
        if code and not found:
            found = [current.read_text()] if current.exists() else []
        return code, found, said

    def attempt(self, mutant: Mutant, made: Map, results: Results) -> None:
        tests, started = tests_of(mutant, made), time.monotonic()
        if not tests:
            return results.add(mutant, tests, self.top, result="not executed", seconds=0.0)
        original = (self.top / mutant.path).read_bytes()
        self.write(mutant.path, mutant.applied(original))
        try:
            code, failed, said = self.run(tests, made, "-x")
        finally:
            self.write(mutant.path, original)
        seconds = round(time.monotonic() - started, 1)
        if code == 0:
            return results.add(mutant, tests, self.top, result="survived", count=len(tests), seconds=seconds)
        last = said.strip().splitlines()[-1] if said.strip() else ""
        results.add(
            mutant, tests, self.top, result="killed", by=failed[:1], code=code, last=last[:200], seconds=seconds
        )

    def close(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)


def try_all(todo: list[Mutant], made: Map, results: Results, workers: int) -> None:
    benches = [Bench() for _ in range(workers)]
    try:
        with ThreadPoolExecutor(workers) as pool:

            def one(mutant: Mutant) -> None:
                bench = benches.pop()
                try:
                    bench.attempt(mutant, made, results)
                finally:
                    benches.append(bench)
                line = results.of[mutant.name]
                print(f"{line['result']:9} {line['seconds']:6.1f} s  {mutant.name[:150]}", flush=True)

            list(pool.map(one, todo))
    finally:
        for bench in benches:
            bench.close()


def take_back(chosen: list[Mutant], made: Map, results: Results) -> list[Mutant]:
    """Take tests that killed, but fail without a mutant, too, out of the map; return what has to be tried again."""
    killers = {mutant: {*results.of[mutant.name].get("by", ())} for mutant in chosen}
    tests = sorted(set().union(*killers.values()) & made.seconds.keys())
    bench = Bench()
    try:
        failed = {*bench.run(tests, made)[1]} if tests else set()
    finally:
        bench.close()
    for test in sorted(failed):
        print(f"fails without a mutant, too: {test}", flush=True)
    for found in (*made.lines.values(), *made.collected.values()):
        found -= failed
    return [mutant for mutant in chosen if killers[mutant] & failed]


def report(chosen: list[Mutant], results: Results) -> bool:
    """Print how many were killed, and what is not in order; whether all is."""
    named = {one["mutant"]: one["reason"] for one in tomllib.loads(SURVIVORS.read_text()).get("survivor", [])}
    alive = [mutant.name for mutant in chosen if results.of[mutant.name]["result"] != "killed"]
    counted = Counter(results.of[mutant.name]["result"] for mutant in chosen)
    print(", ".join(f"{many} {result}" for result, many in counted.most_common()), f"of {len(chosen)}")
    for name in sorted({*named} - {*alive}):
        print(f"named in {SURVIVORS.name}, and no survivor of this sample: {name}")
    for name in sorted(unnamed := {*alive} - {*named}):
        print(f"survived, and is not named in {SURVIVORS.name}: {name}")
    if many := len(alive) > MOST_SURVIVORS * len(chosen):
        print(f"{len(alive)} survived, more than {MOST_SURVIVORS:.0%}")
    return not (unnamed or many)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--sample", type=int, default=SAMPLE)
    asked = parser.parse_args()
    made, results, chosen = load(asked.workers), Results(RESULTS), sample(asked.sample)
    todo = [mutant for mutant in chosen if not results.known(mutant, tests_of(mutant, made))]
    while todo:
        try_all(todo, made, results, asked.workers)
        todo = take_back(chosen, made, results)
    sys.exit(not report(chosen, results))


if __name__ == "__main__":
    main()
