"""Read a job file: YAML -> Job or TrainJob. All problems are reported at once: line, option, what would be right."""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.choice import Choice
from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.job.one_of import NO_CLASS, OneOf
from wavmill.pipeline.job.submitted import is_submitted, refuse_relative
from wavmill.pipeline.job.training_job import TrainJob
from wavmill.pipeline.job.yaml_text import read_yaml

# A branch of a union, in pydantic's paths.
BRANCH = re.compile(r"(constrained-)?(int|float|str|bool)|(literal|tuple|list)\[.*\]", re.DOTALL)
RIGHT = {  # the beginning of pydantic's error type -> what would be right
    "int_": "an integer",
    "float_": "a number",
    "bool_": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a group of options, {{name: value}}",
    "dict_type": "a group of options, {{name: value}}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "finite_number": "a finite number",
}
Problem = tuple[tuple[Any, ...], str]  # the path of an option, and what is wrong with it


def load_job(path: str | Path, sets: Sequence[str] = ()) -> Job | TrainJob:
    """Read and check a job file. Raises JobError with every problem found: line, option, what would be right."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error.strerror) if isinstance(error, OSError) else "it is not text"
        if isinstance(error, FileNotFoundError) and is_submitted():
            reason += "; of your folder the cluster has only what --working-dir sends: "
            reason += f"ray job submit --working-dir . -- wavmill run {path}"
        raise JobError(f"cannot read the job file {path}: {reason}") from error
    return parse_job(text, str(path), sets, Path(path).absolute().parent)


def parse_job(text: str, where: str = "job", sets: Sequence[str] = (), beside: Path | None = None) -> Job | TrainJob:
    """``load_job`` of a text; ``where`` names it in messages. A file with data, model, train or pack trains.

    ``beside``: the folder of the job file, in which its own classes may lie.
    """
    given, lines = read_yaml(text, where)
    if not isinstance(given, dict):
        raise JobError(f"{where} is not a job; 'wavmill new tokens' writes one to start from")
    problems: list[Problem] = []
    for one in sets:
        problems += _set(given, one, lines)
    kind: type[Job | TrainJob] = TrainJob if TrainJob.TELLING & given.keys() else Job
    given = {name: value for name, value in given.items() if value is not None or name not in _sections(kind)}
    try:
        job = kind.model_validate(given, context={"beside": beside})
        if not problems:
            problems += job.misfits()
    except ValidationError as error:
        unfit = {path[0] for path, _ in problems}
        problems += [problem for problem in _sentences(kind, error, given) if problem[0][0] not in unfit]
    if problems:
        problems.sort(key=lambda problem: _line(lines, problem[0]) or 1 << 30)
        raise JobError("\n".join(_place(where, lines, path) + message for path, message in problems))
    return absolute(job)


def absolute(job: Job | TrainJob) -> Job | TrainJob:
    """The job with absolute paths, as workers run elsewhere. JobError for a path that cannot exist."""
    relative: list[str] = []

    def full(address: str) -> str:
        if "://" in address or address in ("auto", "scratch"):
            return address
        if not address.startswith(("/", "~")):
            relative.append(address)
        try:
            os.fsencode(made := str(Path(address).expanduser().absolute()))
        except (RuntimeError, ValueError) as error:  # ~nobody/x, half of a surrogate pair
            raise JobError(f"{address!r} is no path: {error}") from error
        return made

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(moved, value))
        return value.with_addresses(full) if isinstance(value, Choice) else value

    there = {name: moved(value) for name, value in job}
    there["store"] = full(job.store)
    refuse_relative(relative)
    return job.model_copy(update=there)


def _sections(kind: type[BaseModel]) -> set[str]:
    """The names of the sections of a job that have defaults, so that an empty one is valid."""
    return {name for name, field in kind.model_fields.items() if isinstance(field.default, BaseModel)}


def _kinds(kind: type[BaseModel], section: Any) -> Mapping[str, type[BaseModel]]:
    """The classes that a section takes, by ``kind``; empty for a section without kinds."""
    field = kind.model_fields.get(section)
    marks = [*field.metadata, *_marks(field.annotation)] if field is not None else []
    return next((mark.kinds for mark in marks if isinstance(mark, OneOf)), {})


def _marks(annotation: Any) -> list[Any]:
    """The metadata of an annotation, or of the members of its union."""
    inner = [mark for one in get_args(annotation) for mark in _marks(one)]
    return [*annotation.__metadata__, *inner] if get_origin(annotation) is Annotated else inner


def _sentences(job: type[BaseModel], error: ValidationError, given: dict[str, Any]) -> list[Problem]:
    """pydantic's errors as sentences, each with the path of its option."""
    said: dict[tuple[Any, ...], str] = {}
    errors = error.errors()
    paths = [_without_branches(one) for one in errors]
    for one, path in zip(errors, paths, strict=True):
        if any(len(other) > len(path) and other[: len(path)] == path for other in paths):
            continue  # an item of a list is wrong; that the list is no number is no use
        loc, kinds = one["loc"], _kinds(job, one["loc"][0])
        model, whose = job, "a job"
        if kinds and len(loc) > 1:  # the second is the tag of the union
            model, whose = kinds.get(str(loc[1]), BaseModel), given[str(loc[0])]["kind"]
            loc = (loc[0], *loc[2:])
        elif len(loc) > 1:
            whose = ".".join(map(str, loc[:2] if isinstance(loc[1], int) else loc[:1]))
        loc = _without_branches({**one, "loc": loc})
        if kinds and (one["type"] == NO_CLASS or len(one["loc"]) == 1):
            loc, sentence = _of_kind(str(loc[0]), one, kinds, given)
        else:
            own = loc[1:] if kinds else loc
            alike = [other for other, at in zip(errors, paths, strict=True) if at == path]
            sentence = _sentence(".".join(map(str, loc)), whose, one, alike, _owner(model, own) if own else model)
        said.setdefault(loc, sentence)  # another branch of the union has the same error
    return [*said.items()]


def _without_branches(one: ErrorDetails) -> tuple[Any, ...]:
    """The path of an error's option, without the names of union branches."""
    if one["type"] in ("extra_forbidden", "missing"):  # for these the last item is the option
        return one["loc"]
    return tuple(part for part in one["loc"] if not BRANCH.fullmatch(str(part)))


def _of_kind(
    family: str, one: ErrorDetails, kinds: Mapping[str, type[BaseModel]], given: dict[str, Any]
) -> tuple[tuple[Any, ...], str]:
    """What is wrong with a section's ``kind``: the path, and a sentence."""
    known = ", ".join(kinds)
    if one["type"] == "missing":
        return (family,), f"{family} is missing; kinds: {known}"
    if one["type"] == "union_tag_not_found":
        return (family,), f"{family} takes {{kind: ..., ...}}; kinds: {known}"
    kind = given[family]["kind"]
    if one["type"] == NO_CLASS:
        return (family, "kind"), f"{family}.kind {kind!r} {one['msg']}"
    close = get_close_matches(kind, kinds, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {known}, or package.module:Class"
    return (family, "kind"), f"{family}.kind {kind!r} is not known; {hint}"


def _sentence(option: str, whose: str, one: ErrorDetails, alike: list[ErrorDetails], owner: type[BaseModel]) -> str:
    """One of pydantic's errors, and all of the same option; ``owner`` is the model that lacks or refuses the option."""
    if one["type"] == "missing":
        return f"{option} is missing from {whose}"
    if one["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in owner.model_fields.items()]
        close = get_close_matches(str(one["loc"][-1]), names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(names)}"
        return f"{option} is not an option of {whose}; {hint}"
    shown = repr(one["input"]) if len(repr(one["input"])) < 60 else "the value"
    if not one["msg"].startswith("Input should be "):
        return f"{option} is {shown}; {one['msg'].removeprefix('Value error, ')}"
    right = [*dict.fromkeys(map(_right, alike))]
    return f"{option} is {shown}; it should be {' or '.join(filter(None, [', '.join(right[:-1]), right[-1]]))}"


def _right(one: ErrorDetails) -> str:
    """What would be right where this error is, in words for people."""
    known = next((words for begin, words in RIGHT.items() if one["type"].startswith(begin)), None)
    return known.format(**one.get("ctx", {})) if known else one["msg"].removeprefix("Input should be ")


def _owner(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel]:
    """The model that an error's last name belongs to: follows fields that are models themselves."""
    for name in loc[:-1]:
        field = model.model_fields.get(name)
        if field is None or not (inner := [one for one in _types(field.annotation) if issubclass(one, BaseModel)]):
            break
        model = inner[0]
    return model


def _types(annotation: Any) -> list[type[Any]]:
    """The classes in an annotation."""
    return [annotation] if isinstance(annotation, type) else [t for one in get_args(annotation) for t in _types(one)]


def _set(given: dict[str, Any], one: str, lines: dict[tuple[Any, ...], int]) -> list[Any]:
    """Apply one --set feature.layer=6; the value is read as YAML."""
    name, equals, text = one.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise JobError(f"--set {one}: write it as section.option=value")
    at: Any = given
    for part in path[:-1]:
        if at.get(part) is None:
            at[part] = {}
        at = at[part]
        if not isinstance(at, dict):
            return [(path, f"--set {name}: {part} has no options")]
    at[path[-1]], _ = read_yaml(text, f"--set {one}")
    for known in [known for known in lines if known[: len(path)] == path]:
        del lines[known]  # its value is no longer that of the file
    return []


def _line(lines: dict[tuple[Any, ...], int], path: tuple[Any, ...]) -> int | None:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _place(where: str, lines: dict[tuple[Any, ...], int], path: tuple[Any, ...]) -> str:
    line = _line(lines, path)
    return f"{where}:{line}: " if line else f"{where}: "
