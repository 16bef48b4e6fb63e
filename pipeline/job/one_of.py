"""OneOf: the section of a job that takes one of several classes by its ``kind``, in pydantic's own unions."""

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from wavmill.pipeline.contracts import Part
from wavmill.pipeline.job.plugins import class_of

OUTSIDE = "outside"  # the tag of package.module:Class
NO_CLASS = "no_class"  # the type of the error for a class that cannot be used


class OneOf:
    """``Annotated[Family, OneOf(KINDS)]``: an instance of a class of KINDS, or of one from outside.

    A mapping is validated as the class that its ``kind`` names. The context of the validation may have ``beside``: the
    folder of the job file, in which classes from outside may lie.
    """

    def __init__(self, kinds: Mapping[str, type[Part]]) -> None:
        self.kinds = kinds

    def __get_pydantic_core_schema__(self, family: type[Part], handler: GetCoreSchemaHandler) -> Any:
        def outside(value: Any, info: ValidationInfo) -> Part:
            if isinstance(value, family):
                return value
            try:
                found = class_of(value["kind"], (info.context or {}).get("beside"), family)
            except ValueError as error:
                raise PydanticCustomError(NO_CLASS, "{what}", {"what": str(error)}) from error
            return found.model_validate({name: one for name, one in value.items() if name != "kind"})

        return core_schema.tagged_union_schema(
            {
                **{kind: handler.generate_schema(one) for kind, one in self.kinds.items()},
                OUTSIDE: core_schema.with_info_plain_validator_function(
                    outside, metadata={"pydantic_js_functions": [lambda *_: OUTSIDE_SCHEMA]}
                ),
            },
            discriminator=self._tag,
        )

    def _tag(self, value: Any) -> str | None:
        """The kind of a mapping or an instance."""
        if isinstance(value, Part):
            return next((kind for kind, one in self.kinds.items() if type(value) is one), OUTSIDE)
        kind = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            return None
        return OUTSIDE if ":" in kind and kind not in self.kinds else kind


OUTSIDE_SCHEMA = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
