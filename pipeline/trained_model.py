"""A trained model at rest: <store>/<name>/v1 with safetensors, JSON and TorchScript; model.json is written last.

model.safetensors  the weights          config.json    the net's options, the vocabulary, the layout
model.pt           TorchScript          codebook/      the codebook of its codes, if any
metrics.jsonl      all measurements     report.html    a page with curves and sounds
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wavmill.model.quantization.codebook import Codebook
from wavmill.model.token_lm.vocabulary import Vocabulary
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.model_json import CONFIG, MODEL, SCRIPT, WEIGHTS, ModelConfig, PublishedModel
from wavmill.pipeline.protocol.published import find_model
from wavmill.pipeline.quantizers.codebooks import load_codebook
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store, join, read_checked
from wavmill.pipeline.training.finite import not_finite_in

if TYPE_CHECKING:
    from wavmill.model.token_lm.generate import TokenLM


@dataclass(frozen=True)
class Trained:
    """An opened model: ``net`` on its device, the vocabulary of its ids, and, if any, its codebook."""

    net: "TokenLM"
    vocabulary: Vocabulary
    layout: str
    dedup: bool
    tokens_hz: float  # in a second of sound
    codebook: Codebook | None


def open_model(address: str, script: bool = False) -> Trained:
    """Open the model in a folder. ``script``: from its TorchScript instead of its weights, with the same numbers; nets
    from outside always are, as their class may be missing here.

    JobError when there is none, a file is not the one that model.json describes, or its weights are not finite.
    """
    import torch

    model = find_model(address)
    store = open_store(model.address)
    config = config_of(store, model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if script or model.model["kind"] != "samout":
        net: Any = torch.jit.load(io.BytesIO(checked_file(store, model, SCRIPT)), map_location=device)
    else:
        from safetensors.torch import load

        from wavmill.model.token_lm.samout import SamOut

        net = SamOut(**cast(dict[str, Any], config.net))
        net.load_state_dict(load(checked_file(store, model, WEIGHTS)))
    if name := not_finite_in(dict(net.state_dict())):
        raise JobError(f"{model.address} was published with weights that are not finite numbers ({name}); train anew")
    codebook = load_codebook(join(model.address, "codebook")) if config.codebook else None
    vocabulary = Vocabulary.read(config.vocabulary)
    net = net.eval().to(device)
    return Trained(net, vocabulary, config.layout, config.dedup, float(config.rate_hz or 0), codebook)


def config_of(store: Store, model: PublishedModel) -> ModelConfig:
    """A model's config.json. JobError when it is not the file that model.json describes."""
    try:
        return ModelConfig.read(checked_file(store, model, CONFIG))
    except ValueError as error:
        raise JobError(f"{store.url}/{CONFIG} is not a wavmill model's: {error}") from error


def checked_file(store: Store, model: PublishedModel, path: str) -> bytes:
    """The bytes of a model's file. JobError when it is not the file that model.json describes."""
    other = JobError(f"{store.url}/{path} is damaged: it is not what {MODEL} describes")
    return read_checked(store, path, model.sha256_of(path), other)
