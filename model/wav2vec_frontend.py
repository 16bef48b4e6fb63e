"""What HuBERT and wav2vec 2.0 share: seven convolutions from samples to frames, and the check of a config."""

from typing import Any

from wavmill.model.configs import KERNELS, STRIDES, sizes_of

__all__ = ["HOP", "KERNELS", "KINDS", "LEFT", "STRIDES", "WINDOW", "check", "frames_of"]
HOP, WINDOW = 320, 400  # samples, of all seven together
LEFT = WINDOW - HOP
KINDS = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model"}  # in transformers: the same net under two names


def frames_of(samples: int) -> int:
    """T = (N - 80) // 320, of N >= 400 samples."""
    return (samples - LEFT) // HOP


def check(config: dict[str, Any]) -> tuple[int, int]:
    """A config.json -> (transformer blocks, width). ValueError when it is another net, or has parts not built here."""
    sizes = sizes_of(config, *KINDS)
    widths = config.get("conv_dim", [1] * len(KERNELS))
    if len(widths) != len(KERNELS):
        raise ValueError(f"conv_dim is {widths!r}; {len(KERNELS)} widths can be extracted")
    return sizes["num_hidden_layers"], sizes["hidden_size"]
