"""Whisper's encoder (Radford et al. 2022), with all its states: 30 s of log-mel at a time, each 30 s by themselves.

Attention goes over all of the 30 s, padding included, so only rows of the last block that are not needed are left out.
Segments never share a product, so they cannot change each other's numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from wavmill.model.net import Net, loaded
from wavmill.model.whisper_mel import SEGMENT_MELS, SEGMENT_STEPS


class WhisperEncoder(Net):
    """The encoder in inference. States are what goes into the first block, then the output of every block.

    ``normed``: the last state behind the final LayerNorm, as transformers lists it, or before, as OpenAI's code has it.
    """

    def __init__(self, net: Any, normed: bool, dtype: torch.dtype, device: str = "cpu") -> None:
        super().__init__(dtype, device)
        self.normed = normed
        self.heads: int = net.config.encoder_attention_heads
        self.convs = [(self._put(conv.weight), self._put(conv.bias)) for conv in (net.conv1, net.conv2)]
        self.places = self._put(net.embed_positions.weight)
        self.blocks = [self._block(layer) for layer in net.layers]
        self.norm = self._norm(net.layer_norm)

    @torch.inference_mode()
    def __call__(self, mels: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
        """(bands, 3000) float32 log-mels and how many steps of each are wanted -> (steps, blocks + 1, D) each."""
        return [self._segment(mel, count) for mel, count in zip(mels, steps, strict=True)]

    def _segment(self, mel: Tensor, steps: int) -> Tensor:
        if mel.shape[1] != SEGMENT_MELS or not 0 <= steps <= SEGMENT_STEPS:
            raise ValueError(f"a segment is {SEGMENT_MELS} frames of mel and {SEGMENT_STEPS} steps, not {mel.shape}")
        h = mel.to(self.device, self.dtype)[None]
        h = F.gelu(F.conv1d(h, *self.convs[0], padding=1))
        h = F.gelu(F.conv1d(h, *self.convs[1], stride=2, padding=1))[0].T + self.places  # (1500, D)
        states = [h[:steps]]
        for block in self.blocks[:-1]:
            h = self._through(h, block, SEGMENT_STEPS)
            states.append(h[:steps])
        h = self._through(h, self.blocks[-1], steps)
        states.append(self._normed(h, self.norm) if self.normed else h)
        return torch.stack(states, 1)

    def _through(self, h: Tensor, block: dict[str, Any], rows: int) -> Tensor:
        """(1500, D) -> (rows, D): the first rows of a block's output."""
        x = self._normed(h, block["norm"])
        k, v = F.linear(x, *block["kv"]).view(len(h), 2, self.heads, -1).permute(1, 2, 0, 3)[:, None]
        q = F.linear(x[:rows], *block["q"]).view(1, rows, self.heads, -1).transpose(1, 2)
        seen = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)
        h = h[:rows] + F.linear(seen, *block["out"])
        return h + F.linear(F.gelu(F.linear(self._normed(h, block["final"]), *block["up"])), *block["down"])

    def _block(self, layer: Any) -> dict[str, Any]:
        attention = layer.self_attn
        (k, none), (v, bias) = self._linear(attention.k_proj), self._linear(attention.v_proj)
        assert bias is not None and none is None  # Whisper's keys have no bias
        return {
            "q": self._linear(attention.q_proj),
            "kv": (torch.cat([k, v]), torch.cat([torch.zeros_like(bias), bias])),
            "out": self._linear(attention.out_proj),
            "norm": self._norm(layer.self_attn_layer_norm),
            "up": self._linear(layer.fc1),
            "down": self._linear(layer.fc2),
            "final": self._norm(layer.final_layer_norm),
        }


def load(folder: Path, normed: bool, dtype: torch.dtype, device: str = "cpu") -> WhisperEncoder:
    """The encoder of a checkpoint's folder. ValueError when weights of it are missing."""
    import transformers

    net, lacking = loaded(transformers.WhisperModel, folder)
    if missing := [name for name in lacking if name.startswith("encoder.")]:
        raise ValueError(f"{folder} lacks {len(missing)} weights of the encoder, {missing[0]} first")
    return WhisperEncoder(net.encoder, normed, dtype, device)
