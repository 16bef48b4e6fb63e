"""The mutants of a Python file: each is one small change of its text, of which some test should take notice.

Not changed: docstrings and texts (strings with a space, parts of f-strings), annotations and aliases of types, imports,
decorators (without functools.cache everything gives the same, later), and ``if TYPE_CHECKING``.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

OTHER_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OTHER_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


SYMMETRIC = ("max", "min", "pc.and_", "pc.or_", "pc.equal", "pc.not_equal")  # functions, whatever the order


@dataclass(frozen=True)
class Mutant:
    """``old``, at bytes [start, end) of a file, becomes ``new``. name: of the file, the function, and the change; it
    stays the same when lines are added elsewhere. lines: first and last of its statement, without the body.
    top: executed when the module is imported."""

    path: str
    scope: str
    lines: tuple[int, int]
    start: int
    end: int
    old: str
    new: str
    top: bool
    number: int = 1  # of those with the same change in the same function

    @property
    def name(self) -> str:
        again = f"  #{self.number}" if self.number > 1 else ""
        old, new = (_short(text) for text in (self.old, self.new))
        return f"{self.path} {self.scope}: {old}  ->  {new}{again}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def _short(text: str) -> str:
    return " ".join(text.split())


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """All mutants of a file, in its order."""
    found, seen = [], Counter[str]()
    for mutant in _Finder(path, source).statements(ast.parse(source).body, "", True):
        seen[mutant.name] += 1
        found.append(replace(mutant, number=seen[mutant.name]))
    return found


class _Finder:
    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source, self.starts, self.lines = path, source, [0], (1, 1)
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def mutant(self, node: ast.AST, new: str, scope: str, top: bool) -> Mutant:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        old = self.source[start:end].decode()
        return Mutant(self.path, scope or "module", self.lines, start, end, old, new, top)

    def statements(self, body: list[ast.stmt], scope: str, top: bool) -> Iterator[Mutant]:
        for node in body:
            yield from self.statement(node, scope, top)

    def statement(self, node: ast.stmt, scope: str, top: bool) -> Iterator[Mutant]:
        self.lines = (node.lineno, _last_line(node))
        if isinstance(node, ast.Import | ast.ImportFrom) or _guards_types(node) or _is_type_alias(node, top):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{scope}.{node.name}".strip(".")
            for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                yield from self.expression(default, inner, top)
            yield from self.statements(node.body, inner, False)
        elif isinstance(node, ast.ClassDef):
            yield from self.statements(node.body, f"{scope}.{node.name}".strip("."), top)
        elif isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Call):
                yield self.mutant(node, "pass", scope, top)
            if not isinstance(node.value, ast.Constant):
                yield from self.expression(node.value, scope, top)
        else:
            if isinstance(node, ast.Raise | ast.Break | ast.Continue | ast.AugAssign | ast.Delete):
                yield self.mutant(node, "pass", scope, top)
            if isinstance(node, ast.Return) and node.value is not None and not _is_constant(node.value):
                yield self.mutant(node, "return None", scope, top)
            if isinstance(node, ast.If | ast.While):
                yield from self.negated(node.test, scope, top)
            for name, value in ast.iter_fields(node):
                if name == "annotation" or (isinstance(node, ast.Assign) and name == "targets"):
                    continue
                yield from self.children(value, scope, top)

    def children(self, value: object, scope: str, top: bool) -> Iterator[Mutant]:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, ast.stmt):
                yield from self.statement(one, scope, top)
            elif isinstance(one, ast.expr):
                yield from self.expression(one, scope, top)
            elif isinstance(one, ast.AST):
                for _, inner in ast.iter_fields(one):
                    yield from self.children(inner, scope, top)

    def negated(self, test: ast.expr, scope: str, top: bool) -> Iterator[Mutant]:
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            yield self.mutant(test, f"(not ({ast.unparse(test)}))", scope, top)

    def expression(self, node: ast.expr, scope: str, top: bool) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr):
            return
        for new in _changes(node):
            yield self.mutant(node, new, scope, top)
        if isinstance(node, ast.IfExp):
            yield from self.negated(node.test, scope, top)
        for _, value in ast.iter_fields(node):
            yield from self.children(value, scope, top and not isinstance(node, ast.Lambda))


def _changes(node: ast.expr) -> Iterator[str]:
    """The texts that may stand in place of an expression."""
    if isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in OTHER_COMPARISONS[type(operator)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                yield f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in OTHER_ARITHMETIC and not _joins_or_names_types(node):
        yield f"({ast.unparse(ast.BinOp(node.left, OTHER_ARITHMETIC[type(node.op)](), node.right))})"
    elif isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Call) and len(node.args) >= 2 and ast.unparse(node.func) not in SYMMETRIC:
        first, second, *rest = node.args
        if not any(isinstance(one, ast.Starred) for one in (first, second)) and ast.dump(first) != ast.dump(second):
            yield ast.unparse(ast.Call(node.func, [second, first, *rest], node.keywords))


def _other_constants(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int | float):
        yield str(value + 1)
        yield f"({value - 1})"
    elif isinstance(value, str | bytes) and value and (b" " if isinstance(value, bytes) else " ") not in value:
        yield "b''" if isinstance(value, bytes) else "''"


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _joins_or_names_types(node: ast.BinOp) -> bool:
    """Whether both sides are texts, paths, lists or types: with another operator it can only raise TypeError."""
    sides = (node.left, node.right)
    lists = ast.JoinedStr | ast.List | ast.ListComp | ast.Tuple
    if any(isinstance(one, lists) or (_is_constant(one) and isinstance(one.value, str | bytes)) for one in sides):
        return True
    types = any(isinstance(one, ast.Name) and (one.id[0].isupper() or one.id in dir(__builtins__)) for one in sides)
    return isinstance(node.op, ast.BitOr) and types


def _last_line(node: ast.stmt) -> int:
    body = getattr(node, "body", None)
    return max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno


def _guards_types(node: ast.stmt) -> bool:
    named = isinstance(node, ast.If) and isinstance(node.test, ast.Name | ast.Compare)
    return named and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def _is_type_alias(node: ast.stmt, top: bool) -> bool:
    """Work = Callable[...], Number = int | float"""
    if not (top and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
        return False
    name = node.targets[0].id
    subscript = isinstance(node.value, ast.Subscript) or (
        isinstance(node.value, ast.BinOp) and _joins_or_names_types(node.value)
    )
    return subscript and name != name.upper()
