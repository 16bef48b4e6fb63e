"""What HuBERT and wav2vec 2.0 have in common: seven convolutions from samples to frames; how a config names them."""

from typing import Any

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
HOP, WINDOW = 320, 400  # samples, of all seven together
LEFT = WINDOW - HOP
KINDS = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model"}  # in transformers: the same net under two names


def frames_of(samples: int) -> int:
    """T = (N - 80) // 320, of N >= 400 samples."""
    return (samples - LEFT) // HOP


def check(config: dict[str, Any]) -> tuple[int, int]:
    """A config.json -> (transformer blocks, width). ValueError when it is another net, or has parts not built here."""
    told: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model_type": (config.get("model_type"), tuple(KINDS)),
        "conv_kernel": (tuple(config.get("conv_kernel", KERNELS)), (KERNELS,)),
        "conv_stride": (tuple(config.get("conv_stride", STRIDES)), (STRIDES,)),
        "feat_extract_norm": (config.get("feat_extract_norm", "group"), ("group", "layer")),
        "feat_extract_activation": (config.get("feat_extract_activation", "gelu"), ("gelu",)),
        "hidden_act": (config.get("hidden_act", "gelu"), ("gelu",)),
        "conv_pos_batch_norm": (config.get("conv_pos_batch_norm", False), (False,)),
        "adapter_attn_dim": (config.get("adapter_attn_dim"), (None,)),
    }
    for name, (value, known) in told.items():
        if value not in known:
            raise ValueError(f"{name} is {value!r}; {' or '.join(map(repr, known))} can be extracted")
    return int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 768))
