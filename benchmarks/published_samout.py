"""SamOut as it was published, restated: the same arithmetic in the same order and layout, under the same weight names.

After dfytensor's repositories SamOutV1 (model.py), SamOut and OpenASH. Whole sequences only; positions are those of
a sequence shorter than 1024 or, in V1, longer. What benchmarks compare with, and what tests check our numbers by.
"""

import torch
from torch import Tensor, nn


class SuperMixer(nn.Module):
    def __init__(self, d: int, heads: int, head_linear: bool) -> None:
        super().__init__()
        self.heads = heads
        self.combined = nn.Linear(d, 4 * d, bias=False)
        for name in ("alpha1", "alpha2", "alpha3"):
            setattr(self, name, nn.Parameter(torch.tensor(0.5)))
        if head_linear:
            self.head_linear = nn.Linear(5 * heads, heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, d = x.shape
        split = self.combined(x).view(batch, length, 4, self.heads, -1)
        a, b, c, e = (split[:, :, i].permute(0, 3, 1, 2) for i in range(4))  # (B, h, S, heads)
        r = torch.cummax(c, dim=2)[0]
        out = a * b + (self.alpha1 * b + self.alpha2 * e) + a * (self.alpha3 * r + e) + b * (c + r) + c * r
        if hasattr(self, "head_linear"):
            out = out + self.head_linear(torch.cat([a, b, c, e, r], dim=-1)) * r
        return out.transpose(1, 2).contiguous().view(batch, length, d)


class FirstMixer(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads, self.h = heads, d // heads
        self.head0, self.head1, self.head2 = (nn.Linear(d, d, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, d = x.shape
        q, k = (part(x).reshape(batch, length, self.heads, self.h).transpose(1, 2) for part in (self.head0, self.head1))
        m = torch.cummax((q + k) / self.h**0.5, 2)[0].transpose(1, 2).reshape(batch, length, d)
        return (m + self.head2(x)) * m + k.transpose(1, 2).reshape(batch, length, d)


class Gated(nn.Module):
    def __init__(self, d: int, inner: int) -> None:
        super().__init__()
        self.ffn1, self.ffn2, self.gate = nn.Linear(d, inner), nn.Linear(inner, d), nn.Linear(d, inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn2(self.ffn1(x) * torch.relu(self.gate(x)))


class Layer(nn.Module):
    def __init__(self, d: int, heads: int, first: bool, head_linear: bool) -> None:
        super().__init__()
        if first:
            self.self_attention = FirstMixer(d, heads)
        else:
            self.self_attention_linear = SuperMixer(d, heads, head_linear)
        self.ffn = Gated(d, 2 * d if first else d)
        self.layer_norm = nn.LayerNorm(d)
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        mixed = (self.self_attention if hasattr(self, "self_attention") else self.self_attention_linear)(x)
        return self.layer_norm(self.alpha * self.ffn(mixed) + (1 - self.alpha) * x)


class PublishedSamOut(nn.Module):
    """ids (B, S) -> logits (B, S, V), as the authors' train() sees them."""

    def __init__(
        self,
        vocabulary: int,
        d: int = 512,
        heads: int = 8,
        layers: int = 8,
        first: bool = False,
        head_linear: bool = False,
    ) -> None:
        super().__init__()
        self.em = nn.Embedding(vocabulary, d, padding_idx=3 if first else 0)
        self.decoder_layers = nn.ModuleList(Layer(d, heads, first, head_linear) for _ in range(layers))
        if first:
            self.pos = nn.Embedding(1024, d)
            self.down = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in range(layers))
            self.head = nn.Linear(d, vocabulary, bias=False)
        else:
            self.head_score = nn.Linear(d, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.em(ids)
        if hasattr(self, "pos"):
            at = torch.arange(ids.shape[1])
            place = self.pos(at) if ids.shape[1] < 1024 else self.pos(at % 1024) + self.pos(at // 1024)
            zeros = torch.zeros(len(x), 1, 1)
        for i, layer in enumerate(self.decoder_layers):
            if hasattr(self, "pos"):
                x = self.down[i](torch.cat([zeros + place, x], -1))
            x = layer(x) + x
        return (self.head if hasattr(self, "pos") else self.head_score)(x)
