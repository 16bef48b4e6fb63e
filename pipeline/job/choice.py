"""Choice: the base of every part of a job. Plain data that a laptop can check; ``open()`` loads what it needs.

Each field of a choice decides a clip's numbers, unless its annotation says otherwise:

    path: Annotated[str, Address]                         where something lies: never in a fingerprint, made absolute
    fps: Annotated[Fps | None, LeftOutAtDefault] = None   an option that came later: in it only when it is set, so that
                                                          what was made before keeps its fingerprint
    fingerprint: Annotated[str, InRecipeAs("parent")]     in the fingerprint under another name
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, JsonValue


class NotDecisive:
    """Marks a field that does not affect results."""


class Address:
    """Marks a field that is the address of a folder, a file or an s3:// object. It does not affect results."""


class LeftOutAtDefault:
    """Marks a field that is part of a recipe only when it differs from its default."""


class InRecipeAs(NamedTuple):
    """Marks a field that has another name in the recipe."""

    name: str


class Choice(BaseModel):
    """A frozen model that refuses unknown options. ``version`` is raised when a fix changes the numbers it gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: ClassVar[int] = 1

    def recipe(self) -> dict[str, JsonValue]:
        """Everything that affects a clip's numbers; part of fingerprints and codebooks."""
        return {**self.deciding(), "version": self.version}

    def check_here(self) -> None:
        """Raise JobError, NotAllowed or Stopped when this machine cannot read what the choice names."""

    def with_addresses(self, full: Callable[[str], str]) -> Self:
        """With each Address replaced by what ``full`` gives for it."""
        given = {
            name: self.__dict__[name] for name, field in type(self).model_fields.items() if Address in field.metadata
        }
        return self.model_copy(update={name: full(value) for name, value in given.items() if value is not None})

    def deciding(self) -> dict[str, JsonValue]:
        """The fields that decide, by name, as JSON has them."""
        values, found = self.model_dump(mode="json"), {}
        for name in deciding_fields(type(self)):
            field = type(self).model_fields[name]
            if LeftOutAtDefault in field.metadata and self.__dict__[name] == field.default:
                continue
            [renamed] = [mark.name for mark in field.metadata if isinstance(mark, InRecipeAs)] or [name]
            found[renamed] = values[name]
        return found


def _is_marked(metadata: list[Any]) -> bool:
    return any(mark in (NotDecisive, Address) for mark in metadata)


def deciding_fields(kind: type[BaseModel]) -> list[str]:
    """The names of the fields that decide numbers, in the order they are declared."""
    return [name for name, field in kind.model_fields.items() if not _is_marked(field.metadata)]


def sha256_of(decides: Mapping[str, object]) -> str:
    """The fingerprint of what decides a result: sha256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
