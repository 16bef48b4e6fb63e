"""Which weights an encoder has, by name and shape, from its config.json; and what a checkpoint has otherwise."""

from collections.abc import Mapping
from typing import Any

from wavmill.model.wav2vec_frontend import KERNELS

Shapes = dict[str, tuple[int, ...]]
WEIGHT_NORM = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
RENAMED = {  # the names that torch gave the two parts of a weight norm before parametrizations
    "encoder.pos_conv_embed.conv.weight_g": f"{WEIGHT_NORM}0",
    "encoder.pos_conv_embed.conv.weight_v": f"{WEIGHT_NORM}1",
}
PREFIXES = {"hubert": "hubert.", "wav2vec2": "wav2vec2.", "whisper": "model."}  # of a net inside one for a task
UNUSED = {  # what a checkpoint may hold beside the encoder: for training, or of the task that it was tuned for
    "hubert": ("masked_spec_embed", "adapter."),
    "wav2vec2": ("masked_spec_embed", "adapter."),
    "whisper": ("decoder.",),
}
HEADS = (
    "lm_head.",
    "quantizer.",
    "project_q.",
    "project_hid.",
    "final_proj.",
    "label_embs_concat",
    "label_embeddings_concat",
    "classifier.",
    "projector.",
    "layer_weights",
    "tdnn.",
    "objective.",
    "feature_extractor.weight",  # of the net for x-vectors
    "feature_extractor.bias",
    "proj_out.",
)


def encoder_weights(config: Mapping[str, Any]) -> Shapes:
    """The weights that the encoder of a config.json is made of: hubert, wav2vec2 or whisper."""
    return _whisper(config) if config.get("model_type") == "whisper" else _hubert(config)


def _hubert(config: Mapping[str, Any]) -> Shapes:
    """HubertModel and Wav2Vec2Model in transformers; defaults are those of their configs."""
    width, inner = config.get("hidden_size", 768), config.get("intermediate_size", 3072)
    dims = config.get("conv_dim", (512,) * 7)
    every_norm = config.get("feat_extract_norm", "group") == "layer"
    found: Shapes = {}
    for i, (before, after, kernel) in enumerate(zip((1, *dims), dims, KERNELS, strict=False)):
        at = f"feature_extractor.conv_layers.{i}"
        found[f"{at}.conv.weight"] = (after, before, kernel)
        if config.get("conv_bias", False):
            found[f"{at}.conv.bias"] = (after,)
        if every_norm or i == 0:
            found |= _norm(f"{at}.layer_norm", after)
    if config.get("feat_proj_layer_norm", True):  # only HuBERT's config has it
        found |= _norm("feature_projection.layer_norm", dims[-1])
    found |= _linear("feature_projection.projection", dims[-1], width)
    kernel, groups = config.get("num_conv_pos_embeddings", 128), config.get("num_conv_pos_embedding_groups", 16)
    found |= {
        f"{WEIGHT_NORM}0": (1, 1, kernel),
        f"{WEIGHT_NORM}1": (width, width // groups, kernel),
        "encoder.pos_conv_embed.conv.bias": (width,),
        **_norm("encoder.layer_norm", width),
    }
    for i in range(config.get("num_hidden_layers", 12)):
        at = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _linear(f"{at}.attention.{name}", width, width)
        found |= _linear(f"{at}.feed_forward.intermediate_dense", width, inner)
        found |= _linear(f"{at}.feed_forward.output_dense", inner, width)
        found |= _norm(f"{at}.layer_norm", width) | _norm(f"{at}.final_layer_norm", width)
    return found


def _whisper(config: Mapping[str, Any]) -> Shapes:
    """The encoder of WhisperModel in transformers."""
    width, inner, bands = config["d_model"], config.get("encoder_ffn_dim", 1536), config.get("num_mel_bins", 80)
    found: Shapes = {
        "encoder.conv1.weight": (width, bands, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        "encoder.embed_positions.weight": (config.get("max_source_positions", 1500), width),
        **_norm("encoder.layer_norm", width),
    }
    for i in range(config["encoder_layers"]):
        at = f"encoder.layers.{i}"
        for name in ("q_proj", "v_proj", "out_proj"):
            found |= _linear(f"{at}.self_attn.{name}", width, width)
        found[f"{at}.self_attn.k_proj.weight"] = (width, width)
        found |= _linear(f"{at}.fc1", width, inner) | _linear(f"{at}.fc2", inner, width)
        found |= _norm(f"{at}.self_attn_layer_norm", width) | _norm(f"{at}.final_layer_norm", width)
    return found


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, into: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def unused(names: list[str], model_type: str) -> list[str]:
    """Those of the names, as the encoder calls them, that neither a task's head nor training explains."""
    known = (*UNUSED[model_type], *HEADS)
    return [name for name in names if not name.startswith(known)]


def differences(found: Shapes, config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a checkpoint's weights, by name and shape as its files have them: a sentence each."""
    model_type, needed = str(config["model_type"]), encoder_weights(config)
    prefix = PREFIXES[model_type]
    inside = {name.removeprefix(prefix): shape for name, shape in found.items() if name.startswith(prefix)}
    within = bool(needed.keys() & inside.keys())  # the encoder is part of a net for a task
    rest = [name for name in found if not name.startswith(prefix)] if within else []
    there = {RENAMED.get(name, name): shape for name, shape in (inside if within else found).items()}
    problems = []
    if missing := sorted(needed.keys() - there.keys()):
        problems.append(f"it lacks {len(missing):,} weights, {missing[0]} first")
    wrong = [name for name in needed if name in there and there[name] != needed[name]]
    if wrong:
        problems.append(
            f"{len(wrong):,} weights have another shape than config.json gives them: {wrong[0]} is "
            f"{there[wrong[0]]}, and should be {needed[wrong[0]]}"
        )
    if extra := unused(sorted([*(there.keys() - needed.keys()), *rest]), model_type):
        problems.append(
            f"it holds {len(extra):,} weights that a {model_type!r} does not use, {extra[0]} first: "
            "its model_type may be wrong"
        )
    return problems
