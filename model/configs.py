"""The options of a checkpoint's config.json that the nets here support, and the accepted values of the others.

Every option of transformers' config classes is in one of four groups: any value is honoured; one of a few values is
taken; it is a whole number that a net is built by; or it changes nothing that an encoder gives in inference (training,
decoders, heads of tasks, how results are returned). An option that is in none has to have transformers' own default.
"""

from typing import Any, NamedTuple

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)

COMMON = """
    _name_or_path architectures attn_implementation _attn_implementation attention_dropout activation_dropout
    apply_spec_augment bos_token_id chunk_size_feed_forward classifier_proj_size dtype eos_token_id id2label
    is_encoder_decoder label2id mask_feature_length mask_feature_min_masks mask_feature_prob mask_time_length
    mask_time_min_masks mask_time_prob output_attentions output_hidden_states pad_token_id problem_type return_dict
    torch_dtype transformers_version use_weighted_layer_sum vocab_size initializer_range init_std use_cache
    tie_word_embeddings gradient_checkpointing
"""  # change nothing in inference, in any of the families


class Rules(NamedTuple):
    """What one family of nets takes."""

    kind: str  # the config's class in transformers
    taken: dict[str, tuple[Any, ...]]  # option -> values, transformers' default first
    sizes: dict[str, int]  # whole numbers above 0, any -> transformers' default
    multiples: tuple[tuple[str, str], ...]  # (a, b): the size a is a multiple of b
    honoured: frozenset[str]  # whatever they are
    ignored: frozenset[str]  # change nothing here
    aliases: dict[str, str]  # transformers takes the first for the second


def _family(kind: str, more: str = "", **taken: tuple[Any, ...]) -> Rules:
    """HuBERT or wav2vec 2.0."""
    return Rules(
        kind,
        {
            "conv_kernel": (KERNELS,),
            "conv_stride": (STRIDES,),
            "feat_extract_norm": ("group", "layer"),
            "feat_extract_activation": ("gelu",),
            "hidden_act": ("gelu",),
            "num_feat_extract_layers": (len(KERNELS),),
            "adapter_attn_dim": (None,),  # read by HuBERT, too, although its config's class does not have it
            **taken,
        },
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "num_conv_pos_embeddings": 128,
            "num_conv_pos_embedding_groups": 16,
        },
        (("hidden_size", "num_attention_heads"), ("hidden_size", "num_conv_pos_embedding_groups")),
        frozenset(f"model_type conv_bias conv_dim do_stable_layer_norm layer_norm_eps {more}".split()),
        frozenset(
            f"{COMMON} feat_proj_dropout final_dropout hidden_dropout layerdrop ctc_loss_reduction ctc_zero_infinity"
            " feat_extract_dropout".split()
        ),
        {},
    )


HUBERT = _family("HubertConfig", "feat_proj_layer_norm", conv_pos_batch_norm=(False,))
WAV2VEC2 = _family("Wav2Vec2Config")
WAV2VEC2 = WAV2VEC2._replace(
    ignored=WAV2VEC2.ignored  # the adapter lies behind the blocks, the rest are losses and heads
    | set(
        "add_adapter adapter_kernel_size adapter_stride num_adapter_layers output_hidden_size codevector_dim"
        " contrastive_logits_temperature diversity_loss_weight feat_quantizer_dropout num_codevector_groups"
        " num_codevectors_per_group num_negatives proj_codevector_dim tdnn_dilation tdnn_dim tdnn_kernel"
        " xvector_output_dim".split()
    )
)
WHISPER = Rules(
    "WhisperConfig",
    {"activation_function": ("gelu",), "max_source_positions": (1500,)},
    {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "num_mel_bins": 80},
    (("d_model", "encoder_attention_heads"),),
    frozenset(("model_type",)),
    frozenset(
        f"{COMMON} begin_suppress_tokens decoder_attention_heads decoder_ffn_dim decoder_layerdrop decoder_layers"
        " decoder_start_token_id dropout encoder_layerdrop max_target_positions median_filter_width suppress_tokens"
        " scale_embedding forced_decoder_ids max_length alignment_heads lang_to_id task_to_id".split()
    ),
    {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "num_key_value_heads": "encoder_attention_heads",
    },
)
RULES = {"hubert": HUBERT, "wav2vec2": WAV2VEC2, "whisper": WHISPER}


def sizes_of(config: dict[str, Any], *kinds: str) -> dict[str, int]:
    """A config.json -> the sizes of its net. ValueError with everything in it that the net built here does not honour.

    ``kinds``: values of ``model_type`` that may be.
    """
    model_type = config.get("model_type")
    if model_type not in kinds:
        raise ValueError(f"model_type is {model_type!r}; {' or '.join(map(repr, kinds))} can be extracted")
    rules = RULES[str(model_type)]
    problems = []
    for name, values in rules.taken.items():
        value = _plain(config.get(name, values[0]))
        if not any(value == one and type(value) is type(one) for one in values):
            problems.append(f"{name} is {value!r}; {' or '.join(map(repr, values))} can be extracted")
    sizes = {name: config.get(name, default) for name, default in rules.sizes.items()}
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            problems.append(f"{name} is {value!r}; a whole number from 1 on can be extracted")
    for alias, name in rules.aliases.items():
        if config.get(alias, sizes[name]) != sizes[name]:
            problems.append(f"{alias} is {config[alias]!r} and {name} is {sizes[name]!r}; both name one size")
    if not problems:
        problems += [
            f"{name} is {sizes[name]}; with {part} of {sizes[part]} a multiple of that can be extracted"
            for name, part in rules.multiples
            if sizes[name] % sizes[part]
        ]
        problems += _not_default(config, rules)
    if problems:
        raise ValueError("; ".join(problems))
    return sizes


def _not_default(config: dict[str, Any], rules: Rules) -> list[str]:
    """What is wrong with options that stand in no group: those that transformers knows must have its default."""
    grouped = {*rules.taken, *rules.sizes, *rules.honoured, *rules.ignored, *rules.aliases}
    rest = sorted(config.keys() - grouped)
    if not rest:
        return []
    import transformers  # rarely: takes a second

    defaults = getattr(transformers, rules.kind)().to_dict()  # what is not in it transformers does not look at
    return [
        f"{name} is {config[name]!r}; {defaults[name]!r} can be extracted"
        for name in rest
        if name in defaults and _plain(config[name]) != _plain(defaults[name])
    ]


def _plain(value: Any) -> Any:
    """A list as a tuple: JSON has only one of them."""
    return tuple(value) if isinstance(value, list) else value
