"""Which tests execute each line of the files that are mutated: measured once for each test file, kept in .mutants/."""

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEPT = ROOT / ".mutants"
HELPERS = ROOT / "tests/helpers"
END_S = 400.0  # for the tests of a file, which should have ended before
TARGETS = ("pipeline/contracts.py", "pipeline/job", "pipeline/protocol", "pipeline/store", "pipeline/execution")
TARGETS += ("pipeline/training/loop.py", "model/clock.py")
NO_RAY = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/dev/null/none"}  # refused at once, with these
CONFIG = """[run]
parallel = true
data_file = {folder}/data
source = {sources}
patch = _exit
sigterm = true
context = ${{WAVMILL_MUTANTS_CONTEXT-}}
"""


@dataclass
class Map:
    """seconds: of each test that passes without Ray, with those of the fixtures that it shares. lines: file and line ->
    the tests that execute it. collected: file and line -> the tests of the files that execute it when imported."""

    seconds: dict[str, float] = field(default_factory=dict)
    fixtures: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    collected: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))


def targets() -> list[str]:
    paths = (ROOT / target for target in TARGETS)
    found = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    return sorted(str(file.relative_to(ROOT)) for file in found)


def concerns(test_file: Path) -> bool:
    """Whether a test file, or a helper that it imports, imports a package with files that are mutated, or one
    of the verbs, which run them."""
    todo, seen, packages = [test_file], set(), ("cluster", *(target.removesuffix(".py") for target in TARGETS))
    roots = tuple(f"wavmill.{package.replace('/', '.')}" for package in packages)
    while todo:
        seen.add(file := todo.pop())
        for node in ast.walk(ast.parse(file.read_text())):
            names = [f"{node.module}.{one.name}" for one in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if any(name.startswith(roots) for name in names):
                return True
            helpers = (HELPERS / f"{name.partition('.')[0]}.py" for name in names)
            todo += [helper for helper in helpers if helper.exists() and helper not in seen]
    return False


def digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]


def copied() -> Path:
    """A copy of what git knows of the checkout, in a temporary folder."""
    top = Path(tempfile.mkdtemp(prefix="mutants-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).exists():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, top / name, follow_symlinks=False)
    return top


def environment(top: Path, **more: str) -> dict[str, str]:
    """The variables of a test run in a copy, whose compiled files are kept: they halve the time of a start."""
    paths = [str(top), str(top / "tests/helpers"), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = {**os.environ, **NO_RAY, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def run_pytest(top: Path, seconds: float, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code of pytest in a copy, -9 when it was ended after so many seconds, and the end of what it printed."""
    options = ("-q", "-p", "no:cacheprovider", "-p", "covering", "--hypothesis-seed=0", "--basetemp", f"{top}/.out/t")
    printed = top / ".out/printed"
    printed.parent.mkdir(exist_ok=True)
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=top,
            env=environment(top, **env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it started
        return process.wait(), printed.read_text(errors="replace")[-4000:]


def measure(top: Path, test_file: str, kept: Path) -> None:
    """Run the tests of a file under coverage, and keep what they executed."""
    import coverage

    with tempfile.TemporaryDirectory(prefix="cover-") as folder:
        config = Path(folder) / "coverage.ini"
        sources = "\n    ".join(["", *(f"{top}/{name}" for name in ("pipeline", "model"))])
        config.write_text(CONFIG.format(folder=folder, sources=sources))
        code, said = run_pytest(top, END_S, test_file, COVERAGE_PROCESS_START=str(config), WAVMILL_MUTANTS_COVER=folder)
        tests = [json.loads(line) for file in Path(folder).glob("tests-*") for line in file.read_text().splitlines()]
        merged = coverage.Coverage(data_file=f"{folder}/data", config_file=str(config))
        merged.combine(strict=False)
        data = merged.get_data()
        lines: dict[str, Any] = {}
        for file in targets():
            by_line = data.contexts_by_lineno(str(top / file)) if data.has_arcs() or data.measured_files() else {}
            lines[file] = {str(line): sorted(set(contexts) - {""}) for line, contexts in by_line.items()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"code": code, "said": said, "tests": tests, "lines": lines}))
    print(f"{test_file}: {sum(test['passed'] for test in tests)} of {len(tests)} tests can find mutants", flush=True)


def load(workers: int) -> Map:
    """The map, after measuring the test files that changed, or all when a file that is mutated did."""
    sources, made = digest(ROOT / file for file in targets()), Map()
    files = {path: _kept(path, sources) for path in (ROOT / "tests").rglob("test_*.py") if concerns(path)}
    todo = sorted((path for path, kept in files.items() if not kept.exists()), key=lambda path: path.stem)
    if todo:
        print(f"measuring what {len(todo)} test files execute", flush=True)
        tops = [copied() for _ in range(workers)]
        try:
            with ThreadPoolExecutor(workers) as pool:

                def one(path: Path) -> None:
                    top = tops.pop()
                    measure(top, str(path.relative_to(ROOT)), files[path])
                    tops.append(top)

                list(pool.map(one, todo))
        finally:
            for top in tops:
                shutil.rmtree(top, ignore_errors=True)
    for kept in files.values():
        _add(made, json.loads(kept.read_text()))
    return made


def _kept(path: Path, sources: str) -> Path:
    return KEPT / "map" / f"{path.parent.name}.{path.stem}-{sources}-{digest([path])}.json"


def _add(made: Map, measured: dict[str, Any]) -> None:
    users: dict[str, list[str]] = defaultdict(list)
    for test in measured["tests"]:
        if test["passed"]:
            made.seconds[test["test"]] = test["seconds"] + sum(test["fixtures"].values())
            made.fixtures[test["test"]] = sorted(name for name, s in test["fixtures"].items() if s > 0.1)
            for fixture in test["fixtures"]:
                users[fixture].append(test["test"])
    passed = {test["test"] for test in measured["tests"]} & made.seconds.keys()
    for file, lines in measured["lines"].items():
        for line, contexts in lines.items():
            for context in contexts:
                kind = context.partition(" ")[0]
                found = users[context] if kind == "fixture" else passed if kind == "collect" else {context} & passed
                (made.collected if kind == "collect" else made.lines)[file, int(line)].update(found)


if __name__ == "__main__":
    load(int(sys.argv[1]))
