"""YAML 1.2 as plain values, with the line of every option: a key given twice or an alias bomb is an error."""

from typing import Any

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from wavmill.pipeline.errors import JobError

MOST_VALUES = 10_000  # added by aliases: some 600 bytes of YAML can expand to 2^30 values
TAG = "tag:yaml.org,2002:"
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
Lines = dict[tuple[Any, ...], int]  # path of an option, ("data", 0, "weight") -> its line, from 1


class _Constructor(SafeConstructor):
    """Builds what JSON can hold too: a date is text, as in YAML 1.2; sets, bytes and other tags are refused."""

    yaml_constructors = {  # noqa: RUF012  as its base has it
        **{tag: SafeConstructor.yaml_constructors[tag] for tag in (None, *(TAG + name for name in PLAIN))},
        **{TAG + name: SafeConstructor.construct_yaml_str for name in ("timestamp", "value")},
    }

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError) as error:  # !!int x, !!bool x, !!int ""
            problem = f"{str(node.value)[:40]!r} is no {str(node.tag).rpartition(':')[2]}"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark) from error


def read_yaml(text: str, where: str) -> tuple[JsonValue, Lines]:
    """The value that a YAML text holds (dict, list, str, int, float, bool, None), and the line of each option.

    Raises JobError, one sentence that begins with ``where`` and the line, for what is not such a text.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    yaml.composer.warn_double_anchors = False
    try:
        node = yaml.compose(text)
        lines = _lines(node, len(text) + MOST_VALUES, where)
        return (None if node is None else yaml.constructor.construct_document(node)), lines
    except ReaderError as error:
        at = f":{text.count(chr(10), 0, error.position) + 1}" if "\n" in text else ""
        raise JobError(f"{where}{at}: it holds U+{error.character:04X}, a character that no text holds") from error
    except MarkedYAMLError as error:
        at = f":{error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        raise JobError(f"{where}{at}: {error.problem or error}") from error
    except (YAMLError, AssertionError) as error:  # ruamel.yaml uses assert for %YAML lines
        raise JobError(f"{where}: {error}") from error
    except RecursionError as error:
        raise JobError(f"{where}: it is nested too deeply, or holds itself") from error


def _lines(root: Node | None, most: int, where: str) -> Lines:
    """The line of each option, with every alias written out. JobError when that is more than ``most`` values.

    ruamel.yaml does not see a key that is given twice beside a merge (<<), and takes a list for a key; both stop here.
    """
    lines: Lines = {}
    values = 0

    def visit(node: Any, path: tuple[Any, ...]) -> None:
        nonlocal values
        values += 1
        if values > most:
            raise JobError(f"{where}: its aliases (*name) stand for more than {MOST_VALUES:,} values; write them out")
        if isinstance(node, ScalarNode):
            return
        pairs = node.value if isinstance(node, MappingNode) else enumerate(node.value)
        for key, value in pairs:
            at = (*path, str(key.value) if isinstance(key, Node) else key)
            if isinstance(key, Node):
                visit(key, at)
                problem = f"{key.value!r} stands twice" if at in lines else ""
                if not isinstance(key, ScalarNode):
                    problem = "the name of an option is text, not a list or a map (unhashable)"
                if problem:
                    raise ConstructorError(problem=problem, problem_mark=key.start_mark)
            lines[at] = (key if isinstance(key, Node) else value).start_mark.line + 1
            visit(value, at)

    if root is not None:
        visit(root, ())
    return lines
