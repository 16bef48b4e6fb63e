"""Published weights, under whichever of their names, give the published logits in our SamOut; others are refused."""

import pytest
import torch
from nets import HEADS, LAYERS, VOCABULARY, D, PublishedSamOut, shaken, some_ids

from wavmill.model.token_lm.samout import SamOut
from wavmill.model.token_lm.upstream import from_published

VARIANTS = {"first": {"first": True}, "super": {}, "head_linear": {"head_linear": True}}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def published(variant: str, layers: int = LAYERS) -> PublishedSamOut:
    return shaken(PublishedSamOut(VOCABULARY, D, HEADS, layers, **VARIANTS[variant]))


def ours(weights: dict[str, torch.Tensor]) -> SamOut:
    options, state = from_published(weights, HEADS)
    net = SamOut(**options)
    net.load_state_dict(state)
    return net


@torch.no_grad()
def assert_same_logits(net: SamOut, original: PublishedSamOut, length: int = 40) -> None:
    ids = some_ids(0, 2, length)
    right = original(ids)
    assert (net(ids) - right).abs().max() <= 1e-5 * right.abs().max()


@every_variant
def test_published_weights_give_the_published_logits(variant):
    original = published(variant)
    assert_same_logits(ours(original.state_dict()), original)


@every_variant
def test_what_a_net_is_shows_in_its_weights(variant):
    options, _ = from_published(published(variant, layers=11).state_dict(), HEADS)
    assert options == {
        "vocabulary": VOCABULARY,
        "d": D,
        "heads": HEADS,
        "layers": 11,
        "mixer": "max_state" if variant == "first" else "max_state_super",
        "head_linear": variant == "head_linear",
    }


def test_the_first_successors_names_and_its_unused_parameter_are_understood():
    original = published("super")
    weights = {name.replace("_linear.", "."): tensor for name, tensor in original.state_dict().items()}
    weights |= {f"decoder_layers.{layer}.self_attention.alpha4": torch.tensor(0.5) for layer in range(LAYERS)}
    assert "decoder_layers.0.self_attention.combined.weight" in weights
    assert_same_logits(ours(weights), original)


@pytest.mark.parametrize("length", [1023, 1024, 1100])
def test_positions_are_the_published_ones_up_to_1023_and_beyond(length):
    """The original adds row 0 to the first 1024 of a long sequence, and of a short one not: here the row is 0."""
    original = published("first", layers=1)
    torch.nn.init.zeros_(original.pos.weight[0])
    assert_same_logits(ours(original.state_dict()), original, length)


def changed(variant: str = "super", without: str = "nothing", **more: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = {name: tensor for name, tensor in published(variant).state_dict().items() if without not in name}
    return weights | {name.replace("__", "."): tensor for name, tensor in more.items()}


@pytest.mark.parametrize(
    "weights",
    [
        {},
        torch.nn.TransformerEncoderLayer(D, HEADS).state_dict(),
        changed(pos_encoder__weight=torch.zeros(9, D)),
        changed(decoder_layers__0__ffn__omega=torch.zeros(D)),
        changed(decoder_layers__0__ffn__gate__weight=torch.zeros(3 * D, D)),
        changed(without="gate"),
        changed(without="decoder_layers"),
        changed(without="decoder_layers.0"),
        changed(without="head_score"),
        changed("first", without="head2"),
        changed("first", without="pos"),
    ],
)
def test_weights_of_another_net_are_refused(weights):
    with pytest.raises(ValueError, match=r"not (a weight|the weights) of a published SamOut"):
        from_published(weights, HEADS)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="d is 16, which 3 heads do not divide"):
        from_published(changed(), 3)
