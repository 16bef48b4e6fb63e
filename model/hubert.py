"""HuBERT's forward pass (Hsu et al. 2021), laid out so that a clip's numbers cannot depend on any other clip.

Clips lie one after another on a tape, each at a multiple of 320 samples, the hop of all seven convolutions together:
output frame t of a clip is row t of its place on the tape, and the one or two frames that look at two clips are
thrown away. So there is no padding, and all matrix products have one shape: blocks of so many rows, where a row's sums
do not depend on the row's place or on its neighbours. What looks at a whole clip, the norm over time after the
first convolution, the positional convolution and attention, is done clip by clip, over its own frames alone.

The norm over time (GroupNorm with one channel to a group, in Base models) is folded into the first convolution: the
mean and the variance of every channel follow from the mean and the covariance of the 10 samples under the kernel.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from wavmill.model.net import Net, loaded
from wavmill.model.wav2vec_frontend import HOP, KERNELS, KINDS, LEFT, STRIDES, WINDOW, frames_of

FINE = HOP // STRIDES[0]  # rows of the first convolution to a frame of the last
MORE = 15  # rows of the first convolution that the last frame needs beyond its own
CHUNK_FRAMES = 128  # of the tape, through all convolutions at a time
BLOCK_FRAMES = 256  # of the tape, through the matrix products of a layer at a time
TAPE_FRAMES = 8192  # a longer tape would only take more memory
MOMENT_ROWS = 1 << 19  # of a clip's windows of samples, whose mean and covariance are taken at a time
NEEDLESS = {"masked_spec_embed"}  # weights for training

Waves = Sequence[Tensor]
First = tuple[Tensor, Tensor, Tensor]  # a clip's mean, the first convolution, what is added: the norm over time in them


class Hubert(Net):
    """The net up to the highest layer asked for, in inference. ``layers`` count blocks from 1, as fairseq does.

    Called with waves, (N,) float32 each with N >= 400, at 16 kHz: for each (T, L, D) in ``dtype``, the outputs of
    those blocks, T = (N - 80) // 320. The norm that some models put behind their last block is not applied.
    """

    def __init__(self, net: Any, layers: Sequence[int], dtype: torch.dtype, device: str = "cpu") -> None:
        super().__init__(dtype, device)
        config, self.layers = net.config, tuple(layers)
        self.heads, self.pre_norm = config.num_attention_heads, bool(config.do_stable_layer_norm)
        self.over_time, self.width = config.feat_extract_norm == "group", config.hidden_size
        convs, encoder = net.feature_extractor.conv_layers, net.encoder
        self.first = self._put(convs[0].conv.weight[:, 0], torch.float64)  # (C, 10)
        self.first_bias = None if convs[0].conv.bias is None else self._put(convs[0].conv.bias, torch.float64)
        self.norms = [
            self._norm(getattr(conv, "layer_norm", None)) for conv in convs
        ]  # a checkpoint has those of its kind
        self.convs = [self._conv(conv.conv) for conv in convs[1:]]
        projection = net.feature_projection
        self.projected_norm = self._norm(getattr(projection, "layer_norm", None))
        self.projection = self._linear(projection.projection)
        place = encoder.pos_conv_embed.conv
        # oneDNN's grouped convolution in bfloat16 is wrong on processors with AMX (relative error 1.17, PyTorch 2.13)
        exact = torch.float32 if self.device.type == "cpu" else None
        self.place = self._put(place.weight, exact), self._put(place.bias, exact), place.groups
        self.norm = self._norm(encoder.layer_norm)
        self.blocks = [self._block(layer) for layer in encoder.layers[: max(layers)]]

    @torch.inference_mode()
    def __call__(self, waves: Waves, clips: Waves | None = None) -> list[Tensor]:
        """``clips``: of which the waves are pieces, one for each wave; the norm over time is the clip's."""
        owners = waves if clips is None else clips
        once = {id(clip): clip for clip in owners}
        firsts = {name: self._first(clip) for name, clip in once.items()}
        made: list[Tensor] = []
        for tape in tapes([frames_of(len(wave)) for wave in waves]):
            some = range(len(made), len(made) + len(tape))
            made += self._tape([waves[i] for i in some], [firsts[id(owners[i])] for i in some], tape)
        return made

    def _tape(self, waves: Waves, firsts: list[First], at: list[tuple[int, int]]) -> list[Tensor]:
        rows = rows_of(at)
        h = self._convolved(waves, firsts, at, rows)
        h = by_block(h, lambda x: F.linear(self._normed(x, self.projected_norm), *self.projection))
        for start, stop in at:
            h[start:stop] += self._placed(h[start:stop])
        if not self.pre_norm:
            h = self._normed(h, self.norm)
        kept = {}
        for number, block in enumerate(self.blocks, 1):
            h = self._layer(h, block, at)
            if number in self.layers:
                kept[number] = h
        found = torch.stack([kept[number] for number in self.layers], 1)  # (rows, L, D)
        return [found[start:stop] for start, stop in at]

    # ---- from samples to frames: seven convolutions --------------------------------------------------------------

    def _convolved(self, waves: Waves, firsts: list[First], at: list[tuple[int, int]], rows: int) -> Tensor:
        """(rows, C) of the tape."""
        tape = torch.zeros((rows + CHUNK_FRAMES + 1) * HOP + WINDOW, device=self.device)
        owner = torch.zeros(rows + CHUNK_FRAMES + 1, dtype=torch.long, device=self.device)
        for number, (wave, (level, _, _), (start, stop)) in enumerate(zip(waves, firsts, at, strict=True)):
            used = (stop - start) * HOP + LEFT
            tape[start * HOP : start * HOP + used] = wave[:used].to(self.device, torch.float64) - level
            owner[start : stop + 1] = number
        _, kernel, shift = (torch.stack(some) for some in zip(*firsts, strict=True))  # (waves, 10, C), (waves, 1, C)
        made = [self._chunk(tape, owner, kernel, shift, start) for start in range(0, rows, CHUNK_FRAMES)]
        return torch.cat(made)[:rows]

    def _first(self, clip: Tensor) -> First:
        """The first convolution and what is added to it, for this clip: with the norm over its time in them."""
        if not self.over_time:
            bias = torch.zeros_like(self.first[:, 0]) if self.first_bias is None else self.first_bias
            return self.first.new_zeros(()), self.first.T.float(), bias.float()[None]
        assert self.norms[0] is not None
        gain, offset, eps = self.norms[0]  # the convolution's own bias moves the mean, which is taken away
        clip = clip.to(self.device)
        level = clip.mean(dtype=torch.float64)  # the norm would take it away, and lose digits first
        windows = clip.unfold(0, KERNELS[0], STRIDES[0])  # (n, 10)
        some = windows.split(MOMENT_ROWS)
        mean = torch.stack([(rows.double() - level).sum(0) for rows in some]).sum(0) / len(windows)
        apart = ((rows.double() - level) - mean for rows in some)
        covariance = torch.stack([rows.T @ rows for rows in apart]).sum(0) / len(windows)
        scale = gain.double() / (((self.first @ covariance) * self.first).sum(1) + eps).sqrt()
        return level, (self.first.T * scale).float(), (offset.double() - scale * (self.first @ mean)).float()[None]

    def _chunk(self, tape: Tensor, owner: Tensor, kernel: Tensor, shift: Tensor, start: int) -> Tensor:
        """(CHUNK_FRAMES, C): frames [start, start + CHUNK_FRAMES) of the tape, and always as many."""
        frames = CHUNK_FRAMES + 1
        samples = tape[start * HOP : (start + frames) * HOP + KERNELS[0] - STRIDES[0]]
        windows = samples.unfold(0, KERNELS[0], STRIDES[0]).reshape(frames, FINE, KERNELS[0])
        whose = owner[start : start + frames]
        h = torch.baddbmm(shift[whose], windows, kernel[whose]).flatten(0, 1)[: CHUNK_FRAMES * FINE + MORE]
        h = F.gelu(h if self.over_time else self._normed(h, self.norms[0])).to(self.dtype)
        for (pair, third, bias), norm in zip(self.convs, self.norms[1:], strict=True):
            count = (len(h) - (2 if third is None else 3)) // 2 + 1
            h2 = h[: 2 * count].view(count, -1) @ pair  # rows 2t and 2t + 1 side by side
            if third is not None:
                h2.addmm_(h[2 : 2 * count + 1 : 2], third)
            h = F.gelu(self._normed(h2 if bias is None else h2 + bias, norm))
        return h

    # ---- from frames to features ---------------------------------------------------------------------------------

    def _placed(self, h: Tensor) -> Tensor:
        """(T, D) -> (T, D): where in the clip a frame is, by a convolution over 128 of them."""
        weight, bias, groups = self.place
        wide = weight.shape[2]
        made = F.conv1d(h.T[None].to(weight.dtype), weight, bias, padding=wide // 2, groups=groups)[0, :, : len(h)]
        return F.gelu(made).T.to(h.dtype)

    def _layer(self, h: Tensor, block: dict[str, Any], at: list[tuple[int, int]]) -> Tensor:
        qkv = by_block(h, lambda x: F.linear(self._normed(x, block["norm"] if self.pre_norm else None), *block["qkv"]))
        found = torch.zeros_like(h)
        for start, stop in at:
            q, k, v = qkv[start:stop].view(stop - start, 3, self.heads, -1).permute(1, 2, 0, 3)[:, None]
            seen = F.scaled_dot_product_attention(q, k, v)  # (1, heads, T, D / heads)
            found[start:stop] = seen[0].transpose(0, 1).flatten(1)
        return by_block(torch.cat([h, found], 1), lambda x: self._rest(x, block))

    def _rest(self, x: Tensor, block: dict[str, Any]) -> Tensor:
        h, found = x.split(self.width, 1)
        h = h + F.linear(found, *block["out"])
        if not self.pre_norm:
            h = self._normed(h, block["norm"])
        more = self._normed(h, block["final"]) if self.pre_norm else h
        h = h + F.linear(F.gelu(F.linear(more, *block["up"])), *block["down"])
        return h if self.pre_norm else self._normed(h, block["final"])

    # ---- weights -------------------------------------------------------------------------------------------------

    def _conv(self, conv: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """A convolution of stride 2 as products: of two rows side by side, and of a third, if the kernel has three."""
        taps = self._put(conv.weight.permute(2, 1, 0))  # (k, in, out)
        bias = None if conv.bias is None else self._put(conv.bias)
        return taps[:2].flatten(0, 1), taps[2] if len(taps) == 3 else None, bias

    def _block(self, layer: Any) -> dict[str, Any]:
        attention, feed = layer.attention, layer.feed_forward
        three = [self._linear(getattr(attention, name)) for name in ("q_proj", "k_proj", "v_proj")]
        return {
            "qkv": tuple(torch.cat(some) for some in zip(*three, strict=True)),
            "out": self._linear(attention.out_proj),
            "norm": self._norm(layer.layer_norm),
            "up": self._linear(feed.intermediate_dense),
            "down": self._linear(feed.output_dense),
            "final": self._norm(layer.final_layer_norm),
        }


def tapes(frames: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Where clips of so many frames lie, [start, stop) each, on as many tapes as they take; in order."""
    at: list[tuple[int, int]] = []
    for count in frames:
        start = at[-1][1] + 1 if at else 0  # between two clips lies the frame that looks at both
        if at and start + count > TAPE_FRAMES:
            yield at
            at, start = [], 0
        at.append((start, start + count))
    if at:
        yield at


def rows_of(at: list[tuple[int, int]]) -> int:
    """Rows of a tape: whole blocks."""
    return -(-at[-1][1] // BLOCK_FRAMES) * BLOCK_FRAMES


def by_block(x: Tensor, work: Any) -> Tensor:
    """(rows, A) -> (rows, B): ``work`` by blocks of BLOCK_FRAMES rows; a product's shape decides how its sums run."""
    return torch.cat([work(some) for some in x.split(BLOCK_FRAMES)])


def load(folder: Path, layers: Sequence[int], dtype: torch.dtype, device: str = "cpu") -> Hubert:
    """The net of a checkpoint's folder. ValueError when weights are missing, as transformers would draw them."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    net, lacking = loaded(getattr(transformers, KINDS[config.model_type]), folder)
    if missing := [name for name in lacking if name not in NEEDLESS]:
        raise ValueError(f"{folder} lacks {len(missing)} weights, {missing[0]} first")
    return Hubert(net, layers, dtype, device)
