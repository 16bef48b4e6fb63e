"""A trained model at rest: <store>/<name>/v1 with safetensors, JSON and TorchScript; model.json is written last.

model.safetensors  the weights          config.json    the net's options, the vocabulary, the layout: all it needs
model.pt           TorchScript          codebook/      what its codes mean, when they are of one
metrics.jsonl      every line told      report.html    a page to look at and listen to
"""

import io
import json
from dataclasses import dataclass
from typing import Any

from model.codebook import Codebook
from model.vocab import Vocabulary
from pipeline.codebooks import load_codebook
from pipeline.errors import JobError
from pipeline.finite import not_finite_in
from pipeline.published import VERSION, find_dataset, find_published, numbers
from pipeline.store import Store, join, open_store, sha256, split

MODEL, CONFIG, WEIGHTS, SCRIPT = "model.json", "config.json", "model.safetensors", "model.pt"


def find_model(address: str) -> dict[str, Any]:
    """model.json of an address, its newest version unless one is named, with ``address`` of that version added."""
    return find_published(address, "model")


def find(address: str) -> dict[str, Any]:
    """dataset.json or model.json of an address, whichever is there, of the newest version unless one is named."""
    if VERSION.fullmatch(split(address)[1]):
        is_model = open_store(address).stat(MODEL) is not None
    else:
        is_model = max(numbers(address, MODEL), default=0) > max(numbers(address), default=0)
    return find_model(address) if is_model else find_dataset(address)


@dataclass(frozen=True)
class Trained:
    """A model at work: ``net`` with prefill and step on its device, what its ids mean, and, if any, its codebook."""

    net: Any
    vocabulary: Vocabulary
    layout: str
    dedup: bool
    frames_hz: float  # tokens in a second of sound
    codebook: Codebook | None


def open_model(address: str, script: bool = False) -> Trained:
    """The model in a folder. ``script`` takes its TorchScript, not its weights: the same numbers from another file.

    JobError when there is none, a file is not the one that model.json describes, or its weights are not finite.
    """
    import torch

    said = find_model(address)
    store = open_store(said["address"])
    config = json.loads(checked_file(store, said, CONFIG))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if script:
        net: Any = torch.jit.load(io.BytesIO(checked_file(store, said, SCRIPT)), map_location=device)
    else:
        from safetensors.torch import load

        from model.samout import SamOut

        net = SamOut(**config["net"])
        net.load_state_dict(load(checked_file(store, said, WEIGHTS)))
    if name := not_finite_in(dict(net.state_dict())):
        raise JobError(f"{said['address']} was published with weights that are not finite numbers ({name}); train anew")
    codebook = load_codebook(join(said["address"], "codebook")) if config["codebook"] else None
    vocabulary = Vocabulary.read(config["vocabulary"])
    net = net.eval().to(device)
    return Trained(net, vocabulary, config["layout"], config["dedup"], float(config["rate_hz"]), codebook)


def checked_file(store: Store, said: dict[str, Any], path: str) -> bytes:
    """A file of a model, JobError when it is not the one that model.json (``said``) describes."""
    data = store.read(path)
    [file] = [file for file in said["files"] if file["path"] == path]
    if sha256(data) != file["sha256"]:
        raise JobError(f"{store.url}/{path} is damaged: it is not what {MODEL} describes")
    return data
