"""A job file as people write it: YAML -> Job or TrainJob, every problem at once: line, option, what would be right."""

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.plugins import class_of
from pipeline.submitted import is_submitted, refuse_relative
from pipeline.trainjob import TrainJob
from pipeline.weights import is_folder
from pipeline.yamltext import read_yaml

ADDRESSES = ("path", "root", "only", "origin", "codebook")
BRANCH = re.compile(r"(constrained-)?(int|float|str|bool)|literal\[.*\]", re.DOTALL)  # of a union, in pydantic's paths
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


def parse_job(text: str, where: str = "job", sets: Sequence[str] = (), beside: Path | None = None) -> Any:
    """``load_job`` of a text; ``where`` names it in messages. A file with data, model, train or pack trains.

    ``beside``: the folder of the job file, in which its own classes may lie.
    """
    given, lines = read_yaml(text, where)
    if not isinstance(given, dict):
        raise JobError(f"{where} is not a job; 'wavmill new tokens' writes one to start from")
    problems: list[Problem] = []
    for one in sets:
        problems += _set(given, one, lines)
    kind: type[Any] = TrainJob if TrainJob.TELLING & given.keys() else Job
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in kind.FAMILIES:
            values[key] = _choice(key, kind.FAMILIES[key], value, problems, beside)
        elif key in kind.SECTIONS:
            values[key] = _checked(kind.SECTIONS[key], value, (key,), key, problems)
        elif key in kind.LISTS and isinstance(value, list):
            each = enumerate(value)
            values[key] = [_checked(kind.LISTS[key], one, (key, at), f"{key}.{at}", problems) for at, one in each]
        else:
            values[key] = value
    unfit = {path[0] for path, _ in problems}
    try:
        job = kind.model_validate(values)
        if not unfit:
            problems += job.misfits()
    except ValidationError as error:
        problems += [(p, m) for p, m in _said(kind, error, (), "a job") if p[0] not in unfit]
    if problems:
        problems.sort(key=lambda problem: _line(lines, problem[0]) or 1 << 30)
        raise JobError("\n".join(_place(where, lines, path) + message for path, message in problems))
    return absolute(job)


def absolute(job: Any) -> Any:
    """The job with its folders as absolute paths: workers run elsewhere. JobError for one that cannot be meant."""
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

    def moved(choice: Any) -> Any:
        if isinstance(choice, tuple):
            return tuple(map(moved, choice))
        named = {name: getattr(choice, name) for name in ADDRESSES if isinstance(getattr(choice, name, None), str)}
        return choice.model_copy(update={name: full(address) for name, address in named.items()}) if named else choice

    there = {name: moved(getattr(job, name)) for name in ("source", "token", "data", "train") if hasattr(job, name)}
    feature: Any = getattr(job, "feature", None)
    if is_folder(getattr(feature, "model", "")):
        there["feature"] = feature.model_copy(update={"model": full(feature.model)})
    there["store"] = full(job.store)
    refuse_relative(relative)
    return job.model_copy(update=there)


def _choice(family: str, known: dict[str, type[Any]], value: Any, problems: list[Problem], beside: Path | None) -> Any:
    """A section with a ``kind`` as the class of that kind."""
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        problems.append(((family,), f"{family} takes {{kind: ..., ...}}; kinds: {', '.join(known)}"))
        return None
    kind = value["kind"]
    if kind in known:
        return _checked(known[kind], value, (family,), kind, problems)
    if ":" not in kind:
        close = get_close_matches(kind, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}, or package.module:Class"
        problems.append(((family, "kind"), f"{family}.kind {kind!r} is not known; {hint}"))
        return None
    try:
        outside = class_of(kind, beside)
    except ValueError as error:
        problems.append(((family, "kind"), f"{family}.kind {kind!r} {error}"))
        return None
    made = _checked(outside, {k: v for k, v in value.items() if k != "kind"}, (family,), kind, problems)
    if made is not None and not hasattr(made, {"source": "gives", "model": "open"}.get(family, "reads")):
        problems.append(((family, "kind"), f"{family}.kind {kind!r} is no {family}"))
        return None
    return made


def _checked(model: type[Any], value: Any, path: tuple[Any, ...], kind: str, problems: list[Any]) -> Any:
    try:
        return model.model_validate(value if value is not None else {})
    except ValidationError as error:
        problems += _said(model, error, path, kind)
        return None


def _said(model: type[Any], error: ValidationError, path: tuple[Any, ...], kind: str) -> list[Any]:
    """pydantic's errors as sentences."""
    said, seen = [], set()
    for one in error.errors():
        loc = one["loc"]
        if one["type"] not in ("extra_forbidden", "missing"):  # there it ends with the option, whatever its name
            loc = tuple(part for part in loc if not BRANCH.fullmatch(str(part)))
        at, option = (*path, *loc), ".".join(map(str, (*path, *loc)))
        if at in seen:
            continue  # the other branch of a union
        seen.add(at)
        names = [field.alias or name for name, field in _owner(model, loc).model_fields.items()]
        if one["type"] == "extra_forbidden":
            close = get_close_matches(str(loc[-1]), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(names)}"
            said.append((at, f"{option} is not an option of {kind}; {hint}"))
        elif one["type"] == "missing":
            said.append((at, f"{option} is missing from {kind}"))
        else:
            branches = [e["msg"] for e in error.errors() if e["loc"][: len(loc)] == one["loc"][: len(loc)]]
            right = " or ".join(dict.fromkeys(message.removeprefix("Input should be ") for message in branches))
            plain = one["msg"].startswith("Input should be ")
            right = f"it should be {right}" if plain else right.removeprefix("Value error, ")
            shown = repr(one["input"]) if len(repr(one["input"])) < 60 else "the value"
            said.append((at, f"{option} is {shown}; {right}"))
    return said


def _owner(model: type[Any], loc: tuple[Any, ...]) -> type[Any]:
    """The model that an error's last name belongs to: follows fields that are models themselves."""
    for name in loc[:-1]:
        field = model.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        model = field.annotation
    return model


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
        del lines[known]  # what is wrong with it now is not what the file says
    return []


def _line(lines: dict[tuple[Any, ...], int], path: tuple[Any, ...]) -> int | None:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _place(where: str, lines: dict[tuple[Any, ...], int], path: tuple[Any, ...]) -> str:
    line = _line(lines, path)
    return f"{where}:{line}: " if line else f"{where}: "
