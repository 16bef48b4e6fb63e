"""Start a training from the weights of a published model, if it fits the job."""

from typing import TYPE_CHECKING

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.job.training_job import TrainJob
from wavmill.pipeline.model_json import WEIGHTS, PublishedModel
from wavmill.pipeline.protocol.published import find_model
from wavmill.pipeline.store import open_store
from wavmill.pipeline.trained_model import checked_file, config_of
from wavmill.pipeline.training.finite import check_weights

if TYPE_CHECKING:
    from torch import nn


def check_start(job: TrainJob, codes: int, codebook: str, labels: tuple[str, ...] | None = None) -> None:
    """JobError, with all that differs, unless the model that ``train.from`` names fits the job and its tokens.

    ``labels``: those of the data; None before it is packed.
    """
    if (origin := job.train.starts_from) is None:
        return
    model = find_model(origin)
    has, wanted = model.model, job.model.recipe()
    problems = [
        f"model.{name} is {wanted[name]!r} here and {has.get(name)!r} there"
        for name in wanted
        if wanted[name] != has.get(name)
    ]
    if codes != model.vocabulary.codes:
        problems.append(f"the data has {codes:,} codes, and the model {model.vocabulary.codes:,}")
    its_codebook = model.pack.codebook or _codebook_of(model)
    if its_codebook != codebook:
        said = f"its codebook is {its_codebook[:12]}" if its_codebook else "the model does not say of which codebook"
        problems.append(f"the data's tokens are of codebook {codebook[:12]}; {said}")
    if labels is not None and list(labels) != model.vocabulary.labels:
        theirs = model.vocabulary.labels
        more, fewer = sorted({*labels} - {*theirs}), sorted({*theirs} - {*labels})
        problems.append(f"the data has {_some(more)} that the model lacks, and lacks {_some(fewer)} of it")
    if problems:
        raise JobError(f"train.from: {origin} does not fit: {'; '.join(problems)}")


def load_initial_weights(job: TrainJob, net: "nn.Module") -> None:
    """Give a net the weights that ``train.from`` names; nothing where it names none."""
    from safetensors.torch import load

    if (origin := job.train.starts_from) is None:
        return
    model = find_model(origin)
    weights = load(checked_file(open_store(model.address), model, WEIGHTS))
    check_weights(model.address, model.steps, weights)
    net.load_state_dict(weights)


def _codebook_of(model: PublishedModel) -> str:
    """The sha256 of a model's codebook, from its config.json; "" when it carries none."""
    return config_of(open_store(model.address), model).codebook or ""


def _some(labels: list[str]) -> str:
    shown = ", ".join(map(repr, labels[:5]))
    return f"the labels {shown}{', ...' if len(labels) > 5 else ''}" if labels else "no label"
