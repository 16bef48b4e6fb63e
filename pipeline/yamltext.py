"""YAML as people write it: 1e-3 is a number, a key that stands twice is a mistake, every option knows its line."""

import re
from typing import Any

import yaml

from pipeline.errors import JobError

MOST_VALUES = 10_000  # that aliases may stand for beyond what is written out; some 600 bytes can stand for 2^30


class _Loader(yaml.SafeLoader):
    """YAML, but 1e-3 is a number, and 2024-13-45 or !!int x is a mistake at a line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:
            said = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, what) for tag, what in known if tag != "tag:yaml.org,2002:float"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+|\d[\d_]*\.[\d_]*|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def read_yaml(text: str, where: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    """What a YAML text holds, and the line of each option. A SafeLoader: no tag constructs a Python object."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        if _values(node) > MOST_VALUES + len(text):
            raise JobError(f"{where}: its aliases (*name) stand for more than {MOST_VALUES:,} values; write them out")
        lines = _lines(node)
        return yaml.load(text, Loader=_Loader), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}" if mark and "\n" in text else ""
        raise JobError(f"{where}{at}: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise JobError(f"{where}: it is nested too deeply, or holds itself") from error


def _values(node: Any) -> int:
    """How many values a YAML node holds when every alias is written out. RecursionError when it holds itself."""
    counted: dict[int, int] = {}
    inside: set[int] = set()  # the nodes that hold the one being counted

    def count(one: Any) -> int:
        if one is None or isinstance(one, yaml.ScalarNode):
            return 1
        if id(one) in inside:
            raise RecursionError
        if id(one) not in counted:
            inside.add(id(one))
            held = [part for pair in one.value for part in pair] if isinstance(one, yaml.MappingNode) else one.value
            counted[id(one)] = 1 + sum(map(count, held))
            inside.discard(id(one))
        return counted[id(one)]

    return count(node)


def _lines(node: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], int]:
    """The line of each option; an error where one stands twice, of which YAML would take the last."""
    found: dict[tuple[Any, ...], int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        at = (*path, str(key.value))
        if at in found:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
        found[at] = key.start_mark.line + 1
        found |= _lines(value, at)
    return found
