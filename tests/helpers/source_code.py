"""The files of the product and of its tests, and what each imports."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from places import ROOT

PACKAGES = ("cluster", "pipeline", "model")  # each may import those to its right


PRODUCT = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imported(node: ast.AST) -> Iterator[str]:
    """The full names that an import statement brings in."""
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "relative imports are not used here"
        yield node.module or ""


def imports(path: Path, inside: bool | None = None) -> set[str]:
    """All modules a file imports; only at its top level (inside=False) or only below it (True)."""
    tree = tree_of(path)
    top = {id(node) for node in tree.body}
    found = (node for node in ast.walk(tree) if inside is None or (id(node) not in top) == inside)
    return {name for node in found for name in imported(node)}


def roots(names: set[str]) -> set[str]:
    """The packages that modules are of; of wavmill's own the folder, wavmill.pipeline being "pipeline"."""
    return {name.removeprefix("wavmill.").partition(".")[0] for name in names}
