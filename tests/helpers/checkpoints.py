"""Checkpoints as users have them, made by save_pretrained: tiny nets with every weight random."""

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    "conv_dim": (24,) * 7, "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "Base": ("Hubert", {}),
    "Large": ("Hubert", LARGE),
    "wav2vec 2.0": ("Wav2Vec2", {}),
    "wav2vec 2.0 Large": ("Wav2Vec2", LARGE),
    "no norm before the projection": ("Hubert", {"feat_proj_layer_norm": False}),
}


@lru_cache
def net_of(name: str, seed: int = 0, **sizes: Any) -> Any:
    import transformers

    kind, options = NETS[name]
    torch.manual_seed(seed)
    net = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**{**SIZES, **sizes}, **options))
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net.eval()


@lru_cache
def tiny_hubert(name: str = "Base", normalize: bool | None = None, seed: int = 0, **sizes: Any) -> str:
    """The folder of a checkpoint of the HuBERT family."""
    folder = tempfile.mkdtemp(prefix="wavmill-tiny-")
    net_of(name, seed, **sizes).save_pretrained(folder)
    if normalize is not None:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalize}))
    return folder


@lru_cache
def whisper_net(blocks: int = 4, seed: int = 0) -> Any:
    """Whisper's encoder and decoder with weights so large that attention looks at some steps more than at others."""
    import transformers

    torch.manual_seed(seed)
    size: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", blocks), ("attention_heads", 4), ("ffn_dim", 64))
    }
    size |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    net = transformers.WhisperModel(transformers.WhisperConfig(d_model=48, num_mel_bins=80, vocab_size=64, **size))
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net.eval()


@lru_cache
def tiny_whisper(blocks: int = 4, seed: int = 0) -> str:
    """The folder of a Whisper checkpoint."""
    folder = tempfile.mkdtemp(prefix="wavmill-whisper-")
    whisper_net(blocks, seed).save_pretrained(folder)
    return folder


@lru_cache
def tiny_s2g(dim: int = SIZES["hidden_size"], codes: int = 64, stride: int = 2) -> str:
    """A checkpoint with the quantizer of GPT-SoVITS, by the names and in the form of its s2G*.pth."""
    draw, codebook = torch.Generator().manual_seed(0), "quantizer.vq.layers.0._codebook"
    weights = {
        "ssl_proj.weight": torch.randn(dim, dim, stride, generator=draw) / (dim * stride) ** 0.5,
        "ssl_proj.bias": torch.randn(dim, generator=draw),
        f"{codebook}.embed": torch.randn(codes, dim, generator=draw),
        f"{codebook}.inited": torch.ones(1),
    }
    path = Path(tempfile.mkdtemp(prefix="wavmill-s2g-"), "s2G.pth")
    torch.save({"weight": weights, "config": {}, "info": ""}, path)
    return str(path)
