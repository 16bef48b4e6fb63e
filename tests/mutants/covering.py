"""A pytest plugin for mutants.py.

WAVMILL_MUTANTS_COVER=FOLDER: writes which lines each test executes, and how long it takes. Coverage runs already, in
this process and in those that tests start (COVERAGE_PROCESS_START); the plugin says which test is running. What a
fixture of a module or of the session executes is counted for every test that uses it, and what a file of tests
executes when it is imported for every test in it.

WAVMILL_MUTANTS_RUN=FILE: runs the tests of a JSON list of [test, seconds], in its order; one that takes much longer
than its seconds ends the process.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

CONTEXT = "WAVMILL_MUTANTS_CONTEXT"  # read by the configuration of coverage in child processes
LONGEST_S = 20.0  # of a test that may find a mutant
FILE_S = 100.0  # of the tests of a file
PATIENCE_S, PATIENCE = 15.0, 5.0  # a test may take so long, and so many times as long as when it was measured


def pytest_configure(config: pytest.Config) -> None:
    if folder := os.environ.get("WAVMILL_MUTANTS_COVER"):
        config.pluginmanager.register(Covering(Path(folder)))
    if file := os.environ.get("WAVMILL_MUTANTS_RUN"):
        config.pluginmanager.register(Running(Path(file)))


class Covering:
    """Writes a line of JSON for each test: its id, whether it passed, its seconds, and its shared fixtures'."""

    def __init__(self, folder: Path) -> None:
        import coverage

        self.coverage = coverage.Coverage.current()
        self.file = folder / f"tests-{os.getpid()}.jsonl"
        self.fixture_s: dict[str, float] = {}
        self.in_fixtures_s, self.passed = 0.0, True
        self.started = time.monotonic()

    def switch(self, context: str) -> None:
        os.environ[CONTEXT] = context
        if self.coverage is not None:
            self.coverage.switch_context(context)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.in_fixtures_s, self.passed = 0.0, True
        started = time.monotonic()
        self.switch(item.nodeid)
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("takes too long to find mutants"))
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.switch("")
            seconds = time.monotonic() - started - self.in_fixtures_s
            shared = {context_of(one): self.fixture_s.get(context_of(one), 0.0) for one in shared_fixtures(item)}
            line = {"test": item.nodeid, "passed": self.passed, "seconds": round(seconds, 3), "fixtures": shared}
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if time.monotonic() - self.started > FILE_S:
                item.session.shouldstop = "tests enough of this file"

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        self.switch(f"collect {collector.nodeid.partition('::')[0]}")
        try:
            return (yield)
        finally:
            self.switch("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        outer, started = os.environ[CONTEXT], time.monotonic()
        self.switch(context_of(fixturedef))
        try:
            return (yield)
        finally:
            self.switch(outer)
            seconds = time.monotonic() - started
            self.fixture_s.setdefault(context_of(fixturedef), round(seconds, 3))
            if not outer.startswith("fixture "):
                self.in_fixtures_s += seconds

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed &= report.passed


def context_of(fixture: Any) -> str:
    return f"fixture {fixture.baseid}::{fixture.argname}"


def shared_fixtures(item: Any) -> list[Any]:
    """The fixtures of more than one test that a test uses."""
    found = (fixtures[-1] for fixtures in item._fixtureinfo.name2fixturedefs.values())
    return [fixture for fixture in found if fixture.scope != "function"]


class Running:
    """Runs the listed tests in the order of the list, and writes beside it which one runs, and which failed."""

    def __init__(self, file: Path) -> None:
        self.file, self.seconds = file, dict(json.loads(file.read_text()))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {test: number for number, test in enumerate(self.seconds)}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.file.with_suffix(".current").write_text(item.nodeid)
        faulthandler.dump_traceback_later(
            PATIENCE_S + PATIENCE * self.seconds[item.nodeid], exit=True, file=sys.__stderr__
        )
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            with self.file.with_suffix(".failed").open("a") as failed:
                failed.write(report.nodeid + "\n")
