"""What a checkpoint's files say is read from all of them, and checked before anything starts, wherever they lie."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NETS, SIZES, net_of, tiny_hubert, tiny_whisper, whisper_net

from wavmill.model.encoder_weights import differences, encoder_weights, unused
from wavmill.pipeline.errors import JobError
from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.features.weights import describe
from wavmill.pipeline.features.whisper import Whisper
from wavmill.pipeline.store import open_store

PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
SOUND = 0.3 * np.random.default_rng(0).normal(size=9000).astype(np.float32) + 0.1
SAYS = [{}, {"do_normalize": True}, {"do_normalize": False}, {"sampling_rate": 16_000, "return_attention_mask": True}]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def copied(checkpoint, to, **files):
    """A copy of a checkpoint's folder, with more files, JSON each."""
    shutil.copytree(checkpoint, to, dirs_exist_ok=True)
    for name, content in files.items():
        (to / f"{name}.json").write_text(json.dumps(content))
    return to


def resolved(model, **options):
    return HuBERT(model=str(model), **{"layer": 2, **options}).resolved()


def extracted(model):
    [found] = resolved(model).open()([SOUND])
    return found


def put(folder, address):
    for path in Path(folder).iterdir():
        open_store(address).put(path.name, path.read_bytes())
    return address


# ---- what it says of its input ------------------------------------------------------------------------------------


def layouts(says):
    """The same words in each place where a version of transformers keeps them."""
    typed = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", **says}
    yield {"preprocessor_config": says}
    yield {"preprocessor_config": typed}
    yield {"processor_config": {"feature_extractor": typed, "processor_class": "Wav2Vec2Processor"}}
    yield {"processor_config": {"audio_processor": typed}}
    yield {"processor_config": {"processor_class": "Wav2Vec2Processor"}, "preprocessor_config": typed}
    yield {"processor_config": {"feature_extractor": typed}, "preprocessor_config": {"do_normalize": "not asked"}}


@pytest.mark.parametrize("net", ["Base", "Large"])
@pytest.mark.parametrize("says", SAYS, ids=str)
def test_a_sound_is_normalised_as_transformers_loader_says_wherever_it_stands(tmp_path, net, says):
    from transformers import AutoFeatureExtractor

    for number, files in enumerate(layouts(says)):
        folder = copied(tiny_hubert(net), tmp_path / str(number), **files)
        theirs = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        assert resolved(folder).normalize is theirs.do_normalize


@pytest.mark.parametrize("net", ["Base", "Large"])
def test_a_checkpoint_that_says_nothing_of_its_input_is_taken_as_its_net_is(tmp_path, net):
    plain = resolved(tiny_hubert(net)).normalize
    assert plain is (net == "Large")
    assert resolved(copied(tiny_hubert(net), tmp_path, processor_config={"processor_class": "x"})).normalize is plain


def test_features_of_a_checkpoint_with_a_processor_alone_are_transformers(tmp_path):
    from transformers import AutoFeatureExtractor

    says = {"feature_extractor": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}}
    folder = copied(tiny_hubert(), tmp_path, processor_config=says)
    heard = AutoFeatureExtractor.from_pretrained(folder)(SOUND, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        right = net_of("Base")(heard, output_hidden_states=True).hidden_states[2][0].numpy()
    assert np.abs(extracted(folder)[:, 0] - right).max() < 1e-4


def test_a_processor_in_a_bucket_is_read(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    says = {"feature_extractor": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}}
    there = put(copied(tiny_hubert(), tmp_path / "net", processor_config=says), f"{bucket}/said")
    assert resolved(there).normalize and not resolved(tiny_hubert()).normalize


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize(
    "says, words",
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000, and should be 16000"),
        ({"feature_size": 80}, "feature_size is 80, and should be 1"),
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}, "should be Wav2Vec2FeatureExtractor"),
    ],
)
def test_an_input_that_the_net_does_not_take_is_refused(tmp_path, place, says, words):
    folder = copied(tiny_hubert(), tmp_path, **list(layouts(says))[place])
    with pytest.raises(JobError, match=words):
        resolved(folder)


@pytest.mark.parametrize(
    "says, words",
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000"),
        ({"feature_size": 128}, "feature_size is 128, and should be 80"),
        ({"hop_length": 320}, "hop_length is 320"),
        ({"n_fft": 512}, "n_fft is 512"),
        ({"chunk_length": 15}, "chunk_length is 15"),
    ],
)
def test_a_mel_that_whisper_does_not_take_is_refused(tmp_path, says, words):
    for number, files in enumerate(
        ({"preprocessor_config": says}, {"processor_config": {"feature_extractor": {**says}}}),
    ):
        folder = copied(tiny_whisper(), tmp_path / str(number), **files)
        with pytest.raises(JobError, match=words):
            Whisper(model=str(folder), states="musetalk-v1").resolved()
    right = copied(tiny_whisper(), tmp_path / "right", preprocessor_config={"feature_size": 80, "n_fft": 400})
    assert Whisper(model=str(right), states="musetalk-v1").resolved().bands == 80


@pytest.mark.parametrize("name", [PROCESSOR, PREPROCESSOR])
@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_file_that_says_nothing_readable_is_named(tmp_path, name, content):
    folder = copied(tiny_hubert(), tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(JobError, match=f"{name} of .* is no JSON"):
        resolved(folder)


def test_what_identifies_an_ordinary_checkpoint_is_as_ever(tmp_path):
    """Its recipe goes into fingerprints: the hashes of its config and its weights, and the options by their names."""
    import hashlib

    folder = copied(tiny_hubert(), tmp_path, preprocessor_config={"do_normalize": True})
    files = sorted(["config.json", "model.safetensors"])
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]
    assert resolved(folder).recipe() == {
        "kind": "hubert",
        "dtype": "float32",
        "at_rest": "float32",
        "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "dim": 48,
        "layer": 2,
        "pad": "none",
        "normalize": True,
        "input": "plain",
        "version": HuBERT.version,
    }


# ---- the weights that the net is made of --------------------------------------------------------------------------


def shapes_of(net):
    return {name: tuple(weight.shape) for name, weight in net.state_dict().items()}


@pytest.mark.parametrize("name", NETS)
def test_the_weights_of_a_net_are_those_of_transformers(name):
    net = net_of(name)
    found = shapes_of(net)
    needed = encoder_weights(net.config.to_dict())
    assert {one: found[one] for one in needed} == needed
    assert {*found} - {*needed} == {"masked_spec_embed"}


def test_the_weights_of_whispers_encoder_are_those_of_transformers():
    net = whisper_net()
    assert {f"encoder.{name}": shape for name, shape in shapes_of(net.encoder).items()} == encoder_weights(
        net.config.to_dict()
    )


@pytest.mark.parametrize(
    "kind, classes",
    [
        ("Hubert", ["Model", "ForCTC", "ForSequenceClassification"]),
        (
            "Wav2Vec2",
            [
                "Model",
                "ForCTC",
                "ForPreTraining",
                "ForSequenceClassification",
                "ForAudioFrameClassification",
                "ForXVector",
            ],
        ),
        ("Whisper", ["Model", "ForConditionalGeneration", "ForAudioClassification"]),
    ],
)
def test_no_net_of_a_task_holds_weights_that_are_not_known(kind, classes):
    import transformers

    small = {"d_model": 48, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 64, "pad_token_id": 0}
    for name in classes:
        adapter = {"add_adapter": True} if (kind, name) in (("Wav2Vec2", "Model"), ("Wav2Vec2", "ForCTC")) else {}
        config = getattr(transformers, f"{kind}Config")(**(small if kind == "Whisper" else SIZES | adapter))
        with torch.device("meta"):
            net = getattr(transformers, f"{kind}{name}")(config)
        assert differences(shapes_of(net), config.to_dict()) == []


def test_names_of_older_versions_of_torch_are_known():
    found = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): shape
        for name, shape in shapes_of(net_of("Base")).items()
    }
    assert differences(found, net_of("Base").config.to_dict()) == []
    assert unused(["encoder.layers.0.attention.gru_rel_pos_const"], "hubert")


@pytest.fixture
def wavlm(tmp_path):
    """A WavLM that calls itself a HuBERT, which it nearly is."""
    import transformers

    torch.manual_seed(0)
    net = transformers.WavLMModel(transformers.WavLMConfig(**SIZES))
    net.save_pretrained(tmp_path / "wavlm")
    config = {**json.loads((tmp_path / "wavlm" / "config.json").read_text()), "model_type": "hubert"}
    (tmp_path / "wavlm" / "config.json").write_text(json.dumps(config))
    return tmp_path / "wavlm", net


def test_a_net_with_weights_that_hubert_does_not_use_is_refused_before_anything_starts(wavlm):
    with pytest.raises(JobError, match=r"weights that a 'hubert' does not use, encoder\.layers\.0\.attention"):
        resolved(wavlm[0])


def test_a_net_with_weights_that_hubert_does_not_use_is_refused_when_its_bin_is_loaded(wavlm):
    (wavlm[0] / "model.safetensors").unlink()
    torch.save(wavlm[1].state_dict(), wavlm[0] / "pytorch_model.bin")
    with pytest.raises(JobError, match=r"weights that a 'hubert' does not use, encoder\.layers\.0\.attention"):
        resolved(wavlm[0]).open()


# ---- files --------------------------------------------------------------------------------------------------------


def sharded(to, safe=True):
    """A checkpoint in shards with their index, as save_pretrained makes one of a large net."""
    net_of("Base").save_pretrained(to, max_shard_size="200KB")
    if not safe:
        index = json.loads((to / "model.safetensors.index.json").read_text())
        state = net_of("Base").state_dict()
        names = {}
        for old in sorted({*index["weight_map"].values()}):
            new = old.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
            some = {name: state[name] for name, where in index["weight_map"].items() if where == old}
            torch.save(some, to / new)
            names |= dict.fromkeys(some, new)
            (to / old).unlink()
        (to / "model.safetensors.index.json").unlink()
        (to / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert len([*to.iterdir()]) > 3
    return to


@pytest.mark.parametrize("safe", [True, False])
def test_a_sharded_checkpoint_gives_the_features_of_the_same_in_one_file(tmp_path, bucket, monkeypatch, safe):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = sharded(tmp_path / "net", safe)
    right = extracted(tiny_hubert())
    assert np.array_equal(extracted(folder), right)
    there = put(folder, f"{bucket}/sharded")
    assert np.array_equal(extracted(there), right)
    [copy] = [path for path in (tmp_path / "cache/wavmill/models").iterdir() if path.is_dir()]
    next(copy.glob("*.index.json")).unlink()  # a copy as earlier versions made it
    assert np.array_equal(extracted(there), right)


BROKEN = {
    "a git-lfs pointer": (
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git-lfs",
    ),
    "a web page": (lambda data: b"<!DOCTYPE html><html></html>", "web page"),
    "nothing": (lambda data: b"", "cut|no file of"),
    "three bytes": (lambda data: data[:3], "cut|no file of"),
    "a part of the header": (lambda data: data[:100], "cut"),
    "a half": (lambda data: data[: len(data) // 2], "cut"),
    "all but the last byte": (lambda data: data[:-1], "cut"),
    "a byte more": (lambda data: data + b"\0", "damaged|cut"),
}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_is_one_line_that_names_it_before_anything_starts(tmp_path, name, broken):
    if name.endswith(".bin") and broken == "a byte more":
        pytest.skip("a zip file may have bytes behind it")
    folder = copied(tiny_hubert(), tmp_path)
    if name.endswith(".bin"):
        (folder / "model.safetensors").unlink()
        torch.save(net_of("Base").state_dict(), folder / name)
    spoil, words = BROKEN[broken]
    (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    with pytest.raises(JobError, match=words) as error:
        resolved(folder)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("broken", ["a git-lfs pointer", "a half"])
def test_a_broken_file_in_a_bucket_is_one_line_too(tmp_path, bucket, broken):
    folder = copied(tiny_hubert(), tmp_path)
    spoil, words = BROKEN[broken]
    (folder / "model.safetensors").write_bytes(spoil((folder / "model.safetensors").read_bytes()))
    with pytest.raises(JobError, match=words):
        resolved(put(folder, f"{bucket}/broken-{len(words)}"))


def another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


def only_a_variant(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")


def a_bin_beside_a_variant(folder):
    only_a_variant(folder)
    torch.save(net_of("Base").state_dict(), folder / "pytorch_model.bin")


def no_index(folder):
    (folder / "model.safetensors").unlink()
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def a_shard_is_missing(folder):
    (folder / "model.safetensors").unlink()
    sharded(folder)
    min(folder.glob("model-*.safetensors")).unlink()


def an_index_of_nothing(folder):
    no_index(folder)
    (folder / "model.safetensors.index.json").write_text("{}")


def fewer_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "layers.1.attention" not in n}, folder / "model.safetensors")


def no_object(folder):
    (folder / "config.json").write_text("[]")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (another_width, "another shape than config.json gives them"),
        (only_a_variant, "it holds model.fp16.safetensors, and weights are loaded from model.safetensors or"),
        (a_bin_beside_a_variant, "pytorch_model.bin would be loaded, and model.fp16.safetensors lies beside it"),
        (no_index, "it holds model-00001-of"),
        (a_shard_is_missing, "names model-00001-of-.*, and there is no such file"),
        (an_index_of_nothing, "model.safetensors.index.json is damaged"),
        (fewer_weights, "lacks 8 weights, encoder"),
        (no_object, "config.json of .* is no JSON"),
    ],
)
def test_files_that_do_not_make_a_net_are_one_line_before_anything_starts(tmp_path, spoil, words):
    folder = copied(tiny_hubert(), tmp_path)
    spoil(folder)
    with pytest.raises(JobError, match=words) as error:
        resolved(folder)
    assert "\n" not in str(error.value)


def test_a_bin_of_another_width_is_one_line_when_it_is_loaded(tmp_path):
    folder = copied(tiny_hubert(), tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(net_of("Base").state_dict(), folder / "pytorch_model.bin")
    another_width(folder)
    with pytest.raises(JobError, match=r"another shape than config\.json gives them") as error:
        resolved(folder).open()
    assert "\n" not in str(error.value)


def test_a_whisper_of_another_width_is_one_line(tmp_path):
    folder = copied(tiny_whisper(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "d_model": 64}))
    with pytest.raises(JobError, match="another shape"):
        Whisper(model=str(folder), states="musetalk-v1").resolved()


def test_a_good_checkpoint_is_described_with_all_its_weights():
    assert {*encoder_weights(net_of("Base").config.to_dict())} <= {*(describe(tiny_hubert()).shapes or {})}
