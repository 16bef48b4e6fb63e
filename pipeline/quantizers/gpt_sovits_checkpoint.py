"""The quantizer in a GPT-SoVITS checkpoint (s2G*.pth), of every version, read without running what it pickles.

The file is a dict {"weight": tensors, "config": utils.HParams or dict, "info": text}. Versions v2Pro and later, and
those trained with LoRA, have "03" to "06" where a zip begins with "PK" (process_ckpt.py).
"""

import io
from functools import lru_cache
from typing import Any

import numpy as np

from wavmill.model.quantization.projected_codebook import ProjectedCodebook
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import sha256, split

CODEBOOK = "quantizer.vq.layers.0._codebook"
NAMES = {"weight": "ssl_proj.weight", "bias": "ssl_proj.bias", "embed": f"{CODEBOOK}.embed"}
INITED = f"{CODEBOOK}.inited"
ALTERED = (b"03", b"04", b"05", b"06")  # in place of PK, by version
STRIDES = {1: "50hz", 2: "25hz"}  # the widths of ssl_proj, and upstream's names of the token rates


class _HParams:
    """Stands for the class utils.HParams of upstream, which fine-tuned checkpoints pickle their settings as."""

    def __setstate__(self, state: Any) -> None:
        pass


@lru_cache(maxsize=2)
def read_checkpoint(address: str) -> tuple[ProjectedCodebook, str]:
    """The quantizer of the file at an address, and the sha256 of its tensors (``safetensors_of``).

    JobError when there is no such file, it is no checkpoint of GPT-SoVITS, its shapes do not fit each other, it has
    numbers that are not finite, or its codebook was never trained.
    """
    folder, name = split(address)
    try:
        data = open_store(folder).read(name)
    except FileNotFoundError as error:
        raise JobError(f"token.model: there is no file {address}") from error
    quantizer = checked(_tensors(address, data), address)
    return quantizer, sha256(safetensors_of(quantizer))


def safetensors_of(quantizer: ProjectedCodebook) -> bytes:
    """The three tensors under upstream's names, float32: what a published dataset carries, and ``model`` may name."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(getattr(quantizer, field)) for field, name in NAMES.items()})


def _tensors(address: str, data: bytes) -> dict[str, np.ndarray]:
    """The tensors that are needed, as float32. JobError when some are missing."""
    import torch

    try:
        if address.endswith(".safetensors"):
            from safetensors.torch import load

            weights: Any = load(data)
        else:
            if data[:2] in ALTERED:
                data = b"PK" + data[2:]
            with torch.serialization.safe_globals([(_HParams, "utils.HParams")]):
                weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["weight"]
        found = {name: weights[name].float().numpy() for name in (*NAMES.values(), INITED) if name in weights}
    except Exception as error:  # torch raises what it happens to meet in a file that is none of its own
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise JobError(f"token.model: {address} is no checkpoint of GPT-SoVITS (s2G*.pth): {why}") from error
    if missing := [name for name in NAMES.values() if name not in found]:
        raise JobError(f"token.model: {address} has no {', '.join(missing)}; it should be an s2G*.pth of GPT-SoVITS")
    if not found.get(INITED, np.ones(1)).all():
        raise JobError(f"token.model: the codebook in {address} was never trained ({INITED} is false)")
    return found


def checked(tensors: dict[str, np.ndarray], address: str) -> ProjectedCodebook:
    """The quantizer of three tensors. JobError, with all that is wrong, when it could not be used."""
    weight, bias, embed = (tensors[name] for name in NAMES.values())
    problems = [f"{name} is not finite" for name in NAMES.values() if not np.isfinite(tensors[name]).all()]
    shapes = ", ".join(f"{name} {tensors[name].shape}" for name in NAMES.values())
    if (weight.ndim, bias.ndim, embed.ndim) != (3, 1, 2) or not len(weight) == len(bias) == embed.shape[1]:
        problems.append(f"its shapes do not fit each other: {shapes}")
    elif weight.shape[2] not in STRIDES:
        problems.append(f"ssl_proj is {weight.shape[2]} frames wide; it should be 1 (50 codes a second) or 2 (25)")
    if problems:
        raise JobError(f"token.model: {address}: {'; '.join(problems)}")
    return ProjectedCodebook(weight, bias, embed)
