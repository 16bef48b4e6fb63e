"""SamOut: a language model whose memory is a running maximum, so a step costs the same after any number of tokens.

Two mixers, both published by dfytensor: ``max_state_super`` (OpenASH, the later SamOut) and ``max_state`` (SamOutV1).
The originals' chunk rule is replaced by the one that makes a pass in pieces equal the pass as a whole.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavmill.model.token_lm.mixing import mix
from wavmill.model.token_lm.running_max import running_max
from wavmill.model.token_lm.vocabulary import PAD

POSITIONS = 1024
MIXERS = ("max_state_super", "max_state")


class State(NamedTuple):
    """What a model has kept of the ids before: maxima (layers, B, d), and how many tokens, seen (B,) int64.

    Never changed in place. The published (B, d / heads, 1, heads) of a layer is a view of its maxima.
    """

    maxima: Tensor
    seen: Tensor


class MaxStateSuper(nn.Module):
    """x (B, S, d) -> (B, S, d): five branches of x and its running maximum r, multiplied pairwise.

    Channels are in the order (d / heads, heads), the one in which the published code gives its output; ``upstream``
    sorts its weights accordingly. With ``head_linear`` the successor's term over the heads of all five is added.
    """

    def __init__(self, d: int, heads: int, head_linear: bool) -> None:
        super().__init__()
        self.heads = heads
        self.combined = nn.Linear(d, 4 * d, bias=False)
        self.alpha1, self.alpha2, self.alpha3 = (nn.Parameter(torch.tensor(0.5)) for _ in range(3))
        self.head_linear = nn.Linear(5 * heads, heads, bias=False) if head_linear else None

    def forward(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Also returns r (B, S, d); ``start`` (B, d) is the maximum before x."""
        branches = self.combined(x)
        out, r = mix(branches, start, self.alpha1, self.alpha2, self.alpha3)
        if self.head_linear is not None:
            five = torch.cat([branches, r.to(branches.dtype)], dim=-1).unflatten(-1, [5, -1, self.heads])
            out = out + self.head_linear(five.transpose(-3, -2).flatten(-2)).flatten(-2) * r
        return out, r


class MaxState(nn.Module):
    """x (B, S, d) -> (B, S, d): m = running max of (q + k) / sqrt(d / heads); (m + v) * m + k."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(d // heads)
        self.combined = nn.Linear(d, 3 * d, bias=False)

    def forward(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.combined(x).chunk(3, dim=-1)
        m = running_max((q + k).to(start.dtype) * self.scale, start)
        return (m + v) * m + k, m


class FeedForward(nn.Module):
    """z (..., d) -> (..., d): ffn2(ffn1(z) * relu(gate(z)))."""

    def __init__(self, d: int, inner: int) -> None:
        super().__init__()
        self.ffn1, self.gate, self.ffn2 = nn.Linear(d, inner), nn.Linear(d, inner), nn.Linear(inner, d)

    def forward(self, z: Tensor) -> Tensor:
        return self.ffn2(self.ffn1(z) * torch.relu(self.gate(z)))


class Block(nn.Module):
    """x (B, S, d) -> x + LayerNorm(alpha * FFN(mixed) + (1 - alpha) * x), alpha learned.

    With ``positions`` x is first joined with them, and projected back to d.
    """

    def __init__(self, d: int, heads: int, mixer: str, head_linear: bool, positions: bool) -> None:
        super().__init__()
        self.down = nn.Linear(2 * d, d, bias=False) if positions else None
        self.mixer = MaxState(d, heads) if mixer == "max_state" else MaxStateSuper(d, heads, head_linear)
        self.ffn = FeedForward(d, 2 * d if mixer == "max_state" else d)
        self.layer_norm = nn.LayerNorm(d)
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, start: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        if self.down is not None:
            x = self.down(torch.cat([place.to(x.dtype), x], dim=-1))
        mixed, r = self.mixer(x, start)
        return x + self.layer_norm(torch.lerp(x, self.ffn(mixed.to(x.dtype)).to(x.dtype), self.alpha.to(x.dtype))), r


class SamOut(nn.Module):
    """ids (B, S) int64 -> logits (B, S, V). Causal: what follows a token, padding included, does not change its logits.

    18,911,264 parameters at V = 4112, d 512, 8 heads, 8 layers; 18,913,824 with ``head_linear``; with the mixer
    ``max_state``, which also has positions, 27,832,328. ValueError when d is not a multiple of heads.
    """

    def __init__(
        self,
        vocabulary: int,
        d: int = 512,
        heads: int = 8,
        layers: int = 8,
        mixer: str = "max_state_super",
        head_linear: bool = False,
    ) -> None:
        super().__init__()
        if d % heads:
            raise ValueError(f"d is {d}, which {heads} heads do not divide")
        if mixer not in MIXERS:
            raise ValueError(f"there is no mixer {mixer!r}; there are {', '.join(MIXERS)}")
        if head_linear and mixer == "max_state":
            raise ValueError("head_linear belongs to the mixer max_state_super")
        self.options = {
            "vocabulary": vocabulary,
            "d": d,
            "heads": heads,
            "layers": layers,
            "mixer": mixer,
            "head_linear": head_linear,
        }
        self.embedding = nn.Embedding(vocabulary, d, padding_idx=PAD)
        with_positions = mixer == "max_state"
        self.positions = Positions(d) if with_positions else None
        self.blocks = nn.ModuleList(Block(d, heads, mixer, head_linear, with_positions) for _ in range(layers))
        self.head = nn.Linear(d, vocabulary, bias=False)

    def start(self, batch: int) -> State:
        """The state before the first token. Maxima are float32, or float64 in a net of float64."""
        weight = self.head.weight
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        maxima = torch.full((len(self.blocks), batch, weight.shape[1]), -torch.inf, dtype=wide, device=weight.device)
        return State(maxima, torch.zeros(batch, dtype=torch.int64, device=weight.device))

    def read(self, ids: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """ids (B, S) -> what the head reads, (B, S, d), and the state after the last id.

        ``lengths`` (B,) int64, from 1 to S: row b has that many ids and padding after them, which the state leaves out.
        """
        x = self.embedding(ids)
        place = x if self.positions is None else self.positions(state.seen, ids.shape[1])
        maxima: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            x, r = block(x, state.maxima[layer], place)
            maxima.append(r[:, -1] if lengths is None else last(r, lengths))
        read = torch.full_like(state.seen, ids.shape[1]) if lengths is None else lengths
        return x, State(torch.stack(maxima), state.seen + read)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.read(ids, self.start(len(ids)))[0])

    @torch.jit.export
    def prefill(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Prompts ids (B, S), right-padded to S -> the logits (B, V) after each prompt's last id, and the state."""
        x, state = self.read(ids, self.start(len(ids)), lengths)
        return self.head(last(x, lengths)), state

    @torch.jit.export
    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """The next ids (B, S), S >= 1 -> logits (B, S, V), and the state after them."""
        x, state = self.read(ids, state)
        return self.head(x), state


class Positions(nn.Module):
    """Which row of the table: p, and from 1024 on row p // 1024 plus row p % 1024.

    The original (SamOutV1) does this by the length of the whole sequence, so that a prefix's numbers change once it is
    longer than 1024; here by the position alone. So beyond 1,023 tokens the logits are not the original's.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.table = nn.Embedding(POSITIONS, d)

    def forward(self, seen: Tensor, length: int) -> Tensor:
        """seen (B,) tokens before -> (B, length, d)."""
        at = seen[:, None] + torch.arange(length, device=seen.device)
        rows = self.table.num_embeddings
        return self.table(at % rows) + self.table(torch.clamp(at // rows, max=rows - 1)) * (at >= rows)[..., None]


def last(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, S, D) -> (B, D): row b at lengths[b] - 1."""
    return x[torch.arange(len(x), device=x.device), lengths - 1]
