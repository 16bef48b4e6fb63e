"""The JSON schema of job files, for editors: one schema for those that make a dataset and those that train."""

from typing import Any

from pipeline.job import Job
from pipeline.trainjob import TrainJob


def schema() -> dict[str, Any]:
    """A job with data, model, train or pack is a training, as ``parse_job`` has it; any other makes a dataset."""
    definitions: dict[str, Any] = {}
    for kind in (Job, TrainJob):
        definitions[kind.__name__] = _of(kind, definitions)
    trains = {"anyOf": [{"required": [name]} for name in sorted(TrainJob.TELLING)]}
    return {
        "$defs": definitions,
        "type": "object",
        "if": trains,
        "then": {"$ref": "#/$defs/TrainJob"},
        "else": {"$ref": "#/$defs/Job"},
    }


def _of(job: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one kind of job; what it refers to goes to ``definitions``."""
    made = job.model_json_schema(by_alias=True)
    _moved(made, definitions)
    for family, kinds in job.FAMILIES.items():
        refs = []
        for kind in kinds.values():
            one = kind.model_json_schema(by_alias=True)
            _moved(one, definitions)
            one.setdefault("required", []).append("kind")
            definitions[f"{family}-{one['title']}"] = one
            refs.append({"$ref": f"#/$defs/{family}-{one['title']}"})
        outside = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
        made["properties"][family] = {"anyOf": [*refs, outside]}
    return made


def _moved(made: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Take the definitions out of a schema. Two classes of one name in different jobs must not meet."""
    for name, one in made.pop("$defs", {}).items():
        assert definitions.setdefault(name, one) == one, f"two classes are named {name}"
