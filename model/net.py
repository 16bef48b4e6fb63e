"""The base of the extractors' nets: weights for inference, the norm in float32, a single thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from wavmill.model.encoder_weights import PREFIXES, unused

Linear = tuple[Tensor, Tensor | None]  # weight, bias
Norm = tuple[Tensor, Tensor, float]  # weight, bias, eps


class Net:
    """The weights of a net of transformers, in the dtype and on the device in which they are used."""

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        self.dtype, self.device = dtype, torch.device(device)

    def _put(self, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return weight.detach().to(self.device, dtype or self.dtype).contiguous()

    def _linear(self, linear: Any) -> Linear:
        return self._put(linear.weight), None if linear.bias is None else self._put(linear.bias)

    def _norm(self, norm: Any) -> Norm | None:
        return norm and (self._put(norm.weight, torch.float32), self._put(norm.bias, torch.float32), norm.eps)

    def _normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        """LayerNorm over the last axis, in float32."""
        return x if norm is None else F.layer_norm(x.float(), x.shape[-1:], *norm).to(x.dtype)


def loaded(kind: Any, folder: Path) -> tuple[Any, list[str]]:
    """Load a class of transformers from a folder; also returns the names of missing weights, which would be random.

    ValueError, in one line, when a file cannot be read, or holds weights of another shape or that the net does not use.
    """
    import transformers
    from safetensors import SafetensorError
    from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]

    transformers.utils.logging.disable_progress_bar()  # no progress bars from workers
    how = {"local_files_only": True, "weights_only": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        net, told = kind.from_pretrained(folder, ignore_mismatched_sizes=True, **how)
    except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
        if (isinstance(error, OSError) and error.errno) or "allocate" in str(error):
            raise  # a fault of this machine
        raise ValueError(f"{folder} cannot be loaded: {(str(error).strip() or repr(error)).splitlines()[0]}") from error
    if wrong := sorted(told["mismatched_keys"]):
        name, found, needed = wrong[0]
        raise ValueError(
            f"{folder}: {len(wrong):,} weights have another shape than config.json gives them: "
            f"{name} is {tuple(found)}, and should be {tuple(needed)}"
        )
    model_type = net.config.model_type
    names = (name.removeprefix(PREFIXES[model_type]) for name in told["unexpected_keys"])
    if extra := unused(sorted(names), model_type):
        raise ValueError(
            f"{folder} holds {len(extra):,} weights that a {model_type!r} does not use, {extra[0]} first: "
            "its model_type may be wrong"
        )
    return net.eval(), sorted(told["missing_keys"])


@contextmanager
def one_thread() -> Iterator[None]:
    """A context with one torch thread: more threads would split sums differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
