"""Options of a checkpoint's config: each is honoured as transformers does, or refused before anything starts."""

import json
import shutil
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import tiny_hubert, tiny_whisper

from wavmill.model import configs
from wavmill.model.configs import sizes_of
from wavmill.model.hubert import Hubert
from wavmill.model.whisper import WhisperEncoder
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.features.whisper import Whisper

KINDS = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "whisper": "Whisper"}
TINY: dict[str, dict[str, Any]] = {
    "hubert": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8,
        "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": 8,
    },
    "whisper": {
        "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8, "num_mel_bins": 80,
        "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 8,
        "max_target_positions": 4, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0,
    },
}  # fmt: skip
TINY["wav2vec2"] = TINY["hubert"]
WORDS = ("relu", "gelu_new", "silu", "layer", "sum")  # of options that are words
SAMPLES = 3600
OF_RESULTS = {
    "dtype",
    "architectures",
    "problem_type",
    "return_dict",
    "output_attentions",
    "transformers_version",
}  # forms


@lru_cache
def fields(kind: str) -> dict[str, Any]:
    """Every option of transformers' config class -> its value in a tiny net."""
    import transformers

    made = getattr(transformers, f"{KINDS[kind]}Config")(**TINY[kind]).to_dict()
    return json.loads(json.dumps(made)) | {"adapter_attn_dim": None}


def altered(value: Any) -> list[Any]:
    """Other values of the same type."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value, value + 1] if value else [1]
    if isinstance(value, float):
        return [value + 0.5]
    if isinstance(value, str):
        return [word for word in WORDS if word != value]
    if isinstance(value, list):
        return [value[:-1], [*value[:-1], *(value[-1:] * 2)], [2 * one for one in value]]
    return [[3], 3, True] if value is None else []


def reference(kind: str, config: dict[str, Any]) -> tuple[Any, torch.Tensor] | None:
    """transformers' net with that config, every weight random, and its states (T, states, D); None if it has none."""
    import transformers
    from transformers.models.whisper import modeling_whisper

    torch.manual_seed(0)
    try:
        of = getattr(transformers, f"{KINDS[kind]}Config").from_dict(config)
        part = modeling_whisper.WhisperEncoder if kind == "whisper" else getattr(transformers, f"{KINDS[kind]}Model")
        net = part(of).eval()
    except Exception:
        return None
    with torch.inference_mode():
        for name, weight in sorted(net.named_parameters()):
            torch.manual_seed(zlib.crc32(name.encode()))  # so that what else is in the net changes nothing
            weight.copy_(0.2 * torch.randn_like(weight) + 0.5 * (weight.ndim == 1))
        try:
            if kind == "whisper":
                found = net(heard(of.num_mel_bins)[None], output_hidden_states=True).hidden_states
            else:
                found = net(heard(0)[None], output_hidden_states=True).hidden_states
        except Exception:
            return None
    return net, torch.stack(list(found), 2)[0]  # (T, states, D)


@lru_cache
def heard(bands: int) -> torch.Tensor:
    """A second of sound; for Whisper a mel of 30 s."""
    made = np.random.default_rng(0).standard_normal((bands, 3000) if bands else SAMPLES, np.float32)
    return torch.from_numpy(0.5 * made)


def ours(kind: str, net: Any, sizes: dict[str, int]) -> torch.Tensor:
    """(T, states, D) by the net built here. The last state of a HuBERT whose norm is last is left out."""
    if kind == "whisper":
        [found] = WhisperEncoder(net, True, torch.float32)([heard(sizes["num_mel_bins"])], [1500])
        return found
    layers = range(1, sizes["num_hidden_layers"] + (not net.config.do_stable_layer_norm))
    [found] = Hubert(net, layers, torch.float32)([heard(0)])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_config_is_honoured_as_transformers_does_or_refused(kind):
    base, rules = fields(kind), configs.RULES[kind]
    right_before = reference(kind, base)[1]
    refused, changed = set(), set()
    for name in base.keys() - rules.ignored:
        for other in altered(base[name]):
            config = {**base, name: other}
            try:
                sizes = sizes_of(config, kind)
            except ValueError as error:
                assert name in str(error)
                refused.add(name)
                continue
            if (there := reference(kind, config)) is not None:  # else an error of transformers', and no wrong numbers
                right = same(kind, *there, sizes, name)
                if right.shape != right_before.shape or not torch.equal(right, right_before):
                    changed.add(name)
    if kind == "whisper":
        assert refused >= {"activation_function", "max_source_positions"} and changed >= {"d_model", "encoder_layers"}
    else:
        assert refused >= {"hidden_act", "conv_stride", "adapter_attn_dim"}
        assert changed >= {"layer_norm_eps", "conv_bias", "conv_dim", "do_stable_layer_norm", "feat_extract_norm"}


@pytest.mark.parametrize("kind", KINDS)
def test_options_that_are_passed_by_change_nothing_that_transformers_gives(kind):
    base = fields(kind)
    some = {name: altered(base[name])[0] for name in base.keys() & configs.RULES[kind].ignored if altered(base[name])}
    config = {**base, **{name: value for name, value in some.items() if name not in OF_RESULTS}}
    assert len(some.keys() - OF_RESULTS) > 20
    if kind == "wav2vec2":
        config["num_adapter_layers"] = 1  # more leave nothing of so short a sound
    there = reference(kind, config)
    assert there is not None
    right = same(kind, *there, sizes_of(config, kind), "all of them")
    assert torch.equal(right, reference(kind, base)[1])


def same(kind: str, net: Any, right: torch.Tensor, sizes: dict[str, int], name: str) -> torch.Tensor:
    """The reference's states, which are also ours."""
    found = ours(kind, net, sizes)
    mine = right if kind == "whisper" else right[:, 1 : 1 + found.shape[1]]
    assert found.shape == mine.shape, name
    assert torch.linalg.norm(found - mine) < 1e-4 * torch.linalg.norm(mine), name
    return right


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_transformers_gains_must_have_its_default_and_one_that_nobody_reads_may_be_anything(
    kind, monkeypatch
):
    rules = configs.RULES[kind]
    name = next(iter(rules.taken))
    fewer = {option: values for option, values in rules.taken.items() if option != name}
    monkeypatch.setitem(configs.RULES, kind, rules._replace(taken=fewer))  # as if it were unheard of
    assert sizes_of({**fields(kind), "somebody's own": 3}, kind)
    with pytest.raises(ValueError, match=f"{name} is 'other'; .* can be extracted"):
        sizes_of({**fields(kind), name: "other"}, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_without_options_has_those_of_transformers(kind):
    import transformers

    defaults = getattr(transformers, f"{KINDS[kind]}Config")().to_dict()
    for name, size in sizes_of({"model_type": kind}, kind).items():
        assert size == defaults[name], name
    for name, values in configs.RULES[kind].taken.items():
        assert configs._plain(defaults.get(name)) == values[0] or name in (
            "num_feat_extract_layers",
            "adapter_attn_dim",
        )


def test_two_names_of_one_size_that_differ_are_refused():
    config = {**fields("whisper"), "num_hidden_layers": 1}
    assert sizes_of(config, "whisper")["encoder_layers"] == 1
    with pytest.raises(ValueError, match="num_hidden_layers is 2 and encoder_layers is 1"):
        sizes_of({**config, "num_hidden_layers": 2}, "whisper")


def test_everything_that_is_wrong_is_said_at_once():
    config = {**fields("whisper"), "activation_function": "relu", "max_source_positions": 750, "d_model": "wide"}
    with pytest.raises(
        ValueError, match=r"activation_function is 'relu'.*max_source_positions is 750.*d_model is 'wide'"
    ):
        sizes_of(config, "whisper")


def edited(folder: str, tmp_path: Any, file: str, **options: Any) -> str:
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / file
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**config, **options}))
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    "option, value, right",
    [("activation_function", "relu", "'gelu'"), ("max_source_positions", 750, "1500"), ("encoder_layers", 0, "1 on")],
)
def test_a_whisper_whose_config_is_not_honoured_is_refused_when_it_is_planned(option, value, right, tmp_path):
    model = edited(tiny_whisper(), tmp_path, "config.json", **{option: value})
    with pytest.raises(JobError, match=rf"config\.json of {model}: {option} is {value!r}; .*{right}"):
        Whisper(model=model, states="musetalk-v1").resolved()


def test_a_hubert_whose_config_is_not_honoured_is_refused_when_it_is_planned(tmp_path):
    model = edited(tiny_hubert(), tmp_path, "config.json", hidden_act="relu")
    with pytest.raises(JobError, match=rf"config\.json of {model}: hidden_act is 'relu'; 'gelu' can be extracted"):
        HuBERT(model=model, layer=1).resolved()
