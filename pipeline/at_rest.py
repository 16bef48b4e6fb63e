"""The base class of JSON files in a store, which this and later versions read: one class per kind of file.

``FORMAT`` is the format that a file names; its number is raised when older versions cannot read the new files. Unknown
keys are kept, and a field that an older version did not write has its default. So a field may be added under the same
number, with a default that means "not known".
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.store.base import Store, sha256


class AtRest(BaseModel):
    """The contents of a file. Frozen; written in the order of its fields, without those that were not given."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    FORMAT: ClassVar[str] = ""  # the first key of the file, where it has one
    INDENT: ClassVar[int | None] = 1

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Parse a file. ValueError when it is no such file, or of a format that this version does not know."""
        return cls.of(json.loads(data))

    @classmethod
    def of(cls, said: Any) -> Self:
        """As ``read``, from parsed JSON."""
        if cls.FORMAT:
            if not isinstance(said, dict) or not str(said.get("format")).startswith(cls.FORMAT.rstrip("0123456789")):
                raise ValueError("not one of ours")
            if said["format"] != cls.FORMAT:
                raise ValueError(f"its format is {said['format']}, and this version of wavmill reads {cls.FORMAT}")
            said = {name: value for name, value in said.items() if name != "format"}
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from error

    def as_json(self) -> dict[str, Any]:
        """The keys and values of the file."""
        head = {"format": self.FORMAT} if self.FORMAT else {}
        return head | self.model_dump(exclude_unset=True, by_alias=True)

    def written(self) -> bytes:
        """The bytes of the file. ValueError when a number is not finite, which JSON cannot represent."""
        return json.dumps(self.as_json(), indent=self.INDENT, allow_nan=False).encode()


def section(described: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The options of one section of a job as a file describes it; empty when the job has no such section."""
    options = described.get(name) or {}
    if not isinstance(options, Mapping):
        raise TypeError(f"{name} is {options!r}, not options")
    return options


R = TypeVar("R", bound=AtRest)


def read_if_there(store: Store, key: str, kind: type[R]) -> R | None:
    """The parsed object, None when there is none. Stopped when it is damaged."""
    try:
        return kind.read(store.read(key))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Stopped(f"{store.url}/{key} is damaged: {error}") from error


class Sealed(AtRest):
    """JSON that ends with its own hash."""

    @classmethod
    def read(cls, data: bytes) -> Self:
        """As AtRest.read; also ValueError when the hash is wrong."""
        said = unsealed(data)
        del said["sha256"]
        return cls.of(said)

    def written(self) -> bytes:
        return sealed(self.as_json())


def sealed(said: dict[str, Any]) -> bytes:
    """JSON with its own hash. ValueError when a number in it is not finite."""
    return _with_hash(said, allow_nan=False)


def unsealed(data: bytes) -> dict[str, Any]:
    """Parse what ``sealed`` wrote; ValueError when the hash is wrong. Numbers that are not finite are accepted."""
    said = json.loads(data)
    if _with_hash({name: value for name, value in said.items() if name != "sha256"}, allow_nan=True) != data:
        raise ValueError("it does not have the hash it names")
    result: dict[str, Any] = said
    return result


def _with_hash(said: dict[str, Any], allow_nan: bool) -> bytes:
    plain = json.dumps(said, sort_keys=True, allow_nan=allow_nan)
    return json.dumps({**said, "sha256": sha256(plain.encode())}, sort_keys=True, allow_nan=allow_nan).encode()
