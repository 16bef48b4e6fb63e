"""Which options decide a fingerprint: all that are not marked, and what was made before keeps its own."""

import json
import warnings
from typing import Any

import pytest
from decisive import SHA, jobs, training
from places import FIXTURES

from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.decoding.check import Check
from wavmill.pipeline.decoding.decode import Clip
from wavmill.pipeline.features import EXTRACTORS
from wavmill.pipeline.job import training_job as trainjob
from wavmill.pipeline.job.choice import Address, Choice, LeftOutAtDefault, NotDecisive
from wavmill.pipeline.job.dataset_job import Job, decisive, fingerprint
from wavmill.pipeline.job.training_job import Train
from wavmill.pipeline.quantizers import QUANTIZERS
from wavmill.pipeline.sources import SOURCES
from wavmill.pipeline.training.pack_build import Data, Packing
from wavmill.pipeline.training.token_lm import MODELS
from wavmill.pipeline.windows import WINDOWS

BEFORE = json.loads((FIXTURES / "decisive.json").read_text())  # as of when it was listed by hand
CHOICES = [kind for family in (SOURCES, EXTRACTORS, QUANTIZERS, WINDOWS) for kind in family.values()]
CHOICES += [*MODELS.values(), Clip, Check, Data, Packing, Train]
MARKED = {  # where something lies, and how often something is shown or saved
    "Files.path",
    "Files.suffixes",
    "Manifest.path",
    "Manifest.root",
    "WebDataset.path",
    "Faces.path",
    "Faces.only",
    "Faces.root",
    "Dataset.origin",
    "GptSovitsList.path",
    "GptSovitsList.root",
    "GptSovitsTokens.model",
    "HuBERT.model",
    "HuBERT.revision",
    "Whisper.model",
    "Whisper.revision",
    "KMeans.codebook",
    "Data.origin",
    "Train.log_every",
    "Train.origin",
    "Train.checkpoint_every",
    "Job.name",
    "Job.store",
    "Job.fit",
    "Job.scale",
}


def without_versions(said: Any) -> Any:
    """A family's version is raised on purpose, and then everything is made anew."""
    if isinstance(said, dict):
        return {name: without_versions(value) for name, value in said.items() if name not in ("version", "training")}
    return [without_versions(one) for one in said] if isinstance(said, list) else said


@pytest.mark.parametrize("name", sorted(jobs()))
def test_a_job_of_before_keeps_its_fingerprint(name):
    assert without_versions(decisive(jobs()[name])) == without_versions(BEFORE[name])


def test_a_training_of_before_keeps_its_fingerprint():
    now = trainjob.decisive(training(), [PublishedDataset.model_construct(fingerprint=SHA)])
    assert without_versions(now) == without_versions(BEFORE["training"])


def other(value: Any) -> Any:
    """Another value; whether the option would take it does not matter here."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, tuple):
        return (*value, "another")
    if isinstance(value, Choice):
        return value.model_copy(update={name: other(getattr(value, name)) for name in type(value).model_fields})
    return f"{value}, another"


def altered(choice: Any, name: str) -> Any:
    return choice.model_copy(update={name: other(getattr(choice, name))})


OPTIONS = [(kind, name) for kind in CHOICES for name in kind.model_fields]


@pytest.mark.parametrize(("kind", "name"), OPTIONS, ids=[f"{kind.__name__}.{name}" for kind, name in OPTIONS])
def test_an_option_decides_unless_it_is_marked(kind, name):
    needed = {name: "given" for name, field in kind.model_fields.items() if field.is_required()}
    choice = kind.model_construct(**needed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are not of the option's type
        changes = altered(choice, name).recipe() != choice.recipe()
    assert changes == (f"{kind.__name__}.{name}" not in MARKED)


def test_every_mark_is_on_the_list():
    fields = [(kind, *one) for kind in [*CHOICES, Job] for one in kind.model_fields.items()]
    marked = {
        f"{kind.__name__}.{name}"
        for kind, name, field in fields
        if {NotDecisive, Address} & {*filter(callable, field.metadata)}
    }
    assert marked == MARKED


def test_an_option_that_came_later_has_a_default_that_changes_nothing():
    for kind in CHOICES:
        for name, field in kind.model_fields.items():
            if LeftOutAtDefault in field.metadata:
                assert not field.is_required(), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("section", Job.model_fields)
@pytest.mark.parametrize("name", sorted(jobs()))
def test_a_section_of_a_job_decides_unless_it_is_marked(name, section):
    job, before = jobs()[name], fingerprint(jobs()[name])
    value = getattr(job, section)
    if section == "check":
        changed = [Check(fps="30"), Check(max_step_gap=7), Check(fps="25", max_step_gap=3)]
    elif value is None or isinstance(value, str):
        changed = [jobs()["faces, whisper, musetalk"].window if section == "window" else other(value)]
        changed = changed if section in ("name", "store", "window") else []
    elif section == "keep":
        changed = [keep for keep in (("token",), ("feature", "token", "window")) if {*keep} != {*value}]
    else:
        options = [option for option in type(value).model_fields if f"{type(value).__name__}.{option}" not in MARKED]
        changed = [altered(value, option) for option in options]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in changed:
            now = fingerprint(job.model_copy(update={section: one}))
            nothing_is_cut = section == "clip" and job.source.gives != "audio"
            assert (now == before) == (f"Job.{section}" in MARKED or nothing_is_cut)
