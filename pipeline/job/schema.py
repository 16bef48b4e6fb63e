"""The JSON schema of job files, for editors: one schema for those that make a dataset and those that train."""

from typing import Any

from pydantic import JsonValue

from wavmill.pipeline.job.dataset_job import Job
from wavmill.pipeline.job.training_job import TrainJob


def schema() -> dict[str, JsonValue]:
    """A job with data, model, train or pack is a training, as ``parse_job`` has it; any other makes a dataset."""
    definitions: dict[str, Any] = {}
    for kind in (Job, TrainJob):
        definitions[kind.__name__] = _of(kind, definitions)
    trains: JsonValue = {"anyOf": [{"required": [name]} for name in sorted(TrainJob.TELLING)]}
    return {
        "$defs": definitions,
        "type": "object",
        "if": trains,
        "then": {"$ref": "#/$defs/TrainJob"},
        "else": {"$ref": "#/$defs/Job"},
    }


def _of(job: type[Job | TrainJob], definitions: dict[str, Any]) -> dict[str, JsonValue]:
    """The schema of one kind of job; what it refers to goes to ``definitions``."""
    made = job.model_json_schema(by_alias=True)
    for name, one in made.pop("$defs", {}).items():  # two classes of one name in different jobs must not meet
        if definitions.setdefault(name, one) != one:
            raise ValueError(f"two classes are named {name}")
    return made
