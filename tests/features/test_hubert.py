"""HuBERT on a tape: transformers' numbers, and the same bits in whatever company a clip is."""

import copy
import json
import shutil
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NETS, net_of, tiny_hubert
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import digest, rows_of, run_inline, words

from wavmill.model import hubert
from wavmill.model.wav2vec_frontend import frames_of
from wavmill.pipeline.errors import JobError, Reject, Stopped
from wavmill.pipeline.features import gpt_sovits_level
from wavmill.pipeline.features import hubert as feature
from wavmill.pipeline.features.hubert import HuBERT
from wavmill.pipeline.features.weights import describe, fetched
from wavmill.pipeline.job.dataset_job import fingerprint, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.store import open_store

DTYPES = ["float32", "bfloat16", "float16"]
every_net = pytest.mark.parametrize("name", NETS)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache
def ours(name: str, layers: tuple[int, ...] = (1, 3), dtype: str = "float32") -> hubert.Hubert:
    return hubert.Hubert(net_of(name), layers, getattr(torch, dtype))


@lru_cache
def wave(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.02


def relative(found, right):
    return float((found.double() - right.double()).norm() / right.double().norm())


def theirs(name, sound, layers):
    """What transformers gives of one clip, not padded: (T, L, D)."""
    with torch.inference_mode():
        states = net_of(name)(sound[None], output_hidden_states=True).hidden_states
    return torch.stack([states[layer][0] for layer in layers], 1)


# ---- the right numbers --------------------------------------------------------------------------------------------


@every_net
@pytest.mark.parametrize("samples", [400, 401, 719, 720, 5000, 16_000, 48_000, 100_000])
def test_a_layer_is_what_transformers_calls_the_state_behind_it(name, samples):
    """The last block's too: no norm is put behind it, where transformers 4 put one."""
    layers = (1, 2) if NETS[name][1].get("do_stable_layer_norm") else (1, 2, 3)
    [found] = ours(name, layers)([wave(samples)])
    right = theirs(name, wave(samples), layers)
    assert found.shape == right.shape == (frames_of(samples), len(layers), 48)
    assert relative(found, right) < 1e-5


def test_the_last_layer_of_a_large_net_is_the_sum_behind_its_last_block():
    seen = []
    net = net_of("Large")
    hook = net.encoder.layers[2].register_forward_hook(lambda *given: seen.append(given[2]))
    theirs("Large", wave(16_000), (1,))
    hook.remove()
    [found] = ours("Large", (3,))([wave(16_000)])
    right = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert relative(found[:, 0], right[0]) < 1e-5


@pytest.mark.parametrize("gain, offset, bound", [(3, 0, 1e-3), (1145, 0, 1e-3), (1, 0.1, 1e-5)])
def test_a_base_model_hears_neither_gain_nor_offset(gain, offset, bound):
    plain, other = ours("Base")([wave(16_000), gain * wave(16_000) + offset])
    assert relative(other, plain) < bound


def test_blocks_above_the_highest_layer_asked_for_are_not_there():
    assert len(ours("Base", (2,)).blocks) == 2


@pytest.mark.parametrize("dtype, bound", [("float32", 1e-5), ("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_near(dtype, bound):
    [found] = ours("Base", dtype=dtype)([wave(48_000)])
    assert found.dtype == getattr(torch, dtype)
    assert relative(found, theirs("Base", wave(48_000), (1, 3))) < bound


# ---- the same bits in any company ---------------------------------------------------------------------------------

CLIPS = st.lists(st.tuples(st.integers(400, 40_000), st.integers(0, 3)), min_size=1, max_size=9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["Base", "Large"])
@settings(deadline=None, max_examples=6)
@given(clips=CLIPS, tape_frames=st.sampled_from([60, 300, hubert.TAPE_FRAMES]))
def test_a_clip_has_the_same_bits_alone_and_in_any_company(name, dtype, clips, tape_frames):
    net = ours(name, dtype=dtype)
    waves = [wave(*clip) for clip in clips]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubert, "TAPE_FRAMES", tape_frames)
        together = net(waves)
    for found, sound in zip(together, waves, strict=True):
        assert torch.equal(found, net([sound])[0])


def test_a_loud_or_broken_neighbour_changes_nothing():
    broken = wave(9000).clone()
    broken[100] = float("nan")
    for other in (broken, 1e6 * wave(20_000), torch.zeros(3000)):
        assert torch.equal(ours("Base")([other, wave(16_000), other])[1], ours("Base")([wave(16_000)])[0])


@given(st.lists(st.integers(1, 9000), max_size=30))
def test_clips_lie_apart_on_tapes_in_order(frames):
    at = list(hubert.tapes(frames))
    assert [stop - start for tape in at for start, stop in tape] == frames
    for tape in at:
        assert tape[0][0] == 0 and all(after[0] > before[1] for before, after in pairwise(tape))
        assert len(tape) == 1 or tape[-1][1] <= hubert.TAPE_FRAMES
        assert hubert.rows_of(tape) - tape[-1][1] < hubert.BLOCK_FRAMES


# ---- the choice ---------------------------------------------------------------------------------------------------


def choice(**options):
    return HuBERT(**{"model": tiny_hubert(), "layer": 2, **options}).resolved()


def extracted(sound, **options):
    [found] = choice(**options).open()([np.asarray(sound)])
    return found


def test_every_auto_has_a_value_after_a_look_at_the_checkpoint():
    found = choice(layer="last")
    assert (found.layer, found.dim, found.dtype, found.normalize) == (3, 48, "float32", False)
    assert found.sha256 == describe(tiny_hubert()).sha256


@pytest.mark.parametrize(
    "checkpoint, given, expected",
    [
        (("Base",), "auto", False), (("Large",), "auto", True), (("Base", True), "auto", True),
        (("Large", False), "auto", False), (("Large",), False, False), (("Base",), True, True),
    ],
)  # fmt: skip
def test_a_sound_is_normalised_as_the_checkpoint_says(checkpoint, given, expected):
    assert choice(model=tiny_hubert(*checkpoint), normalize=given).normalize is expected


def test_a_normalised_sound_is_the_feature_extractors():
    from transformers import Wav2Vec2FeatureExtractor

    loud = 0.3 * wave(16_000) + 0.1
    right = Wav2Vec2FeatureExtractor(do_normalize=True)(loud.numpy(), sampling_rate=16_000).input_values[0]
    expected = theirs("Large", torch.tensor(right), (2,)).numpy()
    assert relative(torch.tensor(extracted(loud, model=tiny_hubert("Large"))), torch.tensor(expected)) < 1e-5


@pytest.mark.parametrize("samples, frames", [(319, 0), (320, 1), (639, 1), (640, 2), (16_000, 50), (16_319, 50)])
def test_centred_frames_are_as_many_as_there_are_whole_hops(samples, frames):
    found = extracted(wave(samples), pad="centre")
    assert (0 if isinstance(found, Reject) else len(found)) == frames == choice(pad="centre").clock.frames(samples)


def test_centred_frames_are_those_of_the_sound_with_forty_zeros_on_both_sides():
    assert np.array_equal(extracted(wave(16_000), pad="centre"), extracted(np.pad(wave(16_000), 40)))


def test_several_layers_lie_side_by_side_in_the_order_asked_for():
    both = extracted(wave(9000), layer=[3, 1])
    assert np.array_equal(both[:, :1], extracted(wave(9000), layer=3))
    assert np.array_equal(both[:, 1:], extracted(wave(9000), layer=1))


def test_half_precision_at_rest_is_the_rounded_feature():
    assert np.array_equal(extracted(wave(9000), at_rest="float16"), extracted(wave(9000)).astype(np.float16))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 900), st.integers(0, 319))
def test_a_long_clip_in_pieces_has_the_frames_of_its_clock(frames, more):
    samples = 80 + 320 * frames + more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature, "CHUNK_FRAMES", 100)
        patch.setattr(feature, "OVERLAP_FRAMES", 30)
        pieces = list(feature._pieces(np.arange(samples)))
    kept = [piece[0] // 320 + frame for piece, first, last in pieces for frame in range(first, last)]
    assert kept == list(range(frames)) and frames == frames_of(samples)
    assert all(frames_of(len(piece)) >= last for piece, _, last in pieces)


def test_a_long_clip_in_pieces_is_near_the_uncut_one(monkeypatch):
    sound = wave(160_000) * torch.linspace(0.1, 3, 160_000)
    whole = extracted(sound)
    monkeypatch.setattr(feature, "CHUNK_FRAMES", 200)
    monkeypatch.setattr(feature, "OVERLAP_FRAMES", 100)
    cut = extracted(sound)
    assert cut.shape == whole.shape and 1e-6 < relative(torch.tensor(cut), torch.tensor(whole)) < 0.15


@pytest.mark.parametrize("name", ["Base", "Large"])
def test_only_attention_tells_a_piece_from_its_clip(name):
    net = copy.deepcopy(net_of(name))
    for layer in net.encoder.layers:
        for parameter in layer.attention.out_proj.parameters():
            parameter.detach().zero_()
    deaf, sound = hubert.Hubert(net, (3,), torch.float32), wave(96_000) * torch.linspace(0.1, 3, 96_000)
    cut = sound[100 * 320 : 290 * 320 + 80]
    [whole], [piece], [alone] = deaf([sound]), deaf([cut], [sound]), deaf([cut])
    inside = slice(64, -64)  # each frame looks at 64 on either side, for its place
    right = whole[100:290][inside]
    assert relative(piece[inside], right) < 1e-5
    assert name == "Large" or relative(alone[inside], right) > 0.1


@pytest.mark.parametrize(
    "options, said",
    [
        ({"layer": 4}, "has 3 blocks, numbered from 1; layer is 4"),
        ({"layer": [1, 9]}, "has 3 blocks"),
        ({"model": "/nowhere"}, "there is no folder /nowhere"),
        ({"sha256": "0" * 64}, "feature.sha256 is 0000"),
        ({"dim": 768}, "feature.dim is 768; that of .* is 48"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_said_before_anything_starts(options, said):
    with pytest.raises(JobError, match=said):
        choice(**options)


def test_another_kind_of_net_is_refused_by_name(tmp_path):
    shutil.copytree(tiny_hubert(), tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "model_type": "wavlm"}))
    with pytest.raises(JobError, match="model_type is 'wavlm'; 'hubert' or 'wav2vec2' can be extracted"):
        choice(model=str(tmp_path / "other"))


# ---- weights ------------------------------------------------------------------------------------------------------


def test_weights_count_by_their_content_wherever_they_lie(tmp_path, corpus):
    shutil.copytree(tiny_hubert(), tmp_path / "copy")
    assert describe(str(tmp_path / "copy")).sha256 == describe(tiny_hubert()).sha256
    assert describe(tiny_hubert(seed=1)).sha256 != describe(tiny_hubert()).sha256

    def job(model):
        text = f"""
            {{name: units, source: {{kind: files, path: "{corpus}"}}, store: "{tmp_path}/store",
             feature: {{kind: hubert, model: "{model}", layer: 2}}}}"""
        return fingerprint(resolve(parse_job(text)))

    assert job(tmp_path / "copy") == job(tiny_hubert()) != job(tiny_hubert(seed=1))


def test_weights_that_were_exchanged_since_the_job_was_planned_stop_it(tmp_path):
    shutil.copytree(tiny_hubert(), tmp_path / "net")
    planned = choice(model=str(tmp_path / "net"))
    shutil.copytree(tiny_hubert(seed=1), tmp_path / "net", dirs_exist_ok=True)
    with pytest.raises(Stopped, match="the job was planned with"):
        planned.open()


def test_a_checkpoint_of_a_task_gives_what_its_net_gives(tmp_path):
    """A net fine-tuned for CTC has a head, which is not used."""
    import transformers

    net = transformers.HubertForCTC(net_of("Base").config)
    net.hubert.load_state_dict(net_of("Base").state_dict())
    net.save_pretrained(tmp_path)
    assert np.array_equal(extracted(wave(9000), model=str(tmp_path)), extracted(wave(9000)))


def test_a_checkpoint_saved_by_torch_is_read_without_its_pickles(tmp_path):
    shutil.copy(f"{tiny_hubert()}/config.json", tmp_path)
    torch.save(net_of("Base").state_dict(), tmp_path / "pytorch_model.bin")
    assert np.array_equal(extracted(wave(9000), model=str(tmp_path)), extracted(wave(9000)))


class Bad:
    """What a pickle may do when it is opened."""

    def __reduce__(self):
        return Path("opened").write_text, ("by a pickle",)


def test_a_pickle_that_does_something_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(f"{tiny_hubert()}/config.json", tmp_path)
    torch.save({"bad": Bad()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        choice(model=str(tmp_path)).open()
    assert not (tmp_path / "opened").exists()


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    shutil.copy(f"{tiny_hubert()}/config.json", tmp_path)
    some = {name: weight for name, weight in net_of("Base").state_dict().items() if "layers.1.attention" not in name}
    torch.save(some, tmp_path / "pytorch_model.bin")
    with pytest.raises(JobError, match="lacks 8 weights, encoder"):
        choice(model=str(tmp_path)).open()


@pytest.mark.parametrize("missing, said", [("config.json", "has no config.json"), ("model.safetensors", "no weights")])
def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(tmp_path, missing, said):
    shutil.copytree(tiny_hubert(), tmp_path / "net")
    (tmp_path / "net" / missing).unlink()
    with pytest.raises(JobError, match=said):
        describe(str(tmp_path / "net"))


def test_weights_on_s3_are_fetched_once_to_a_machine(bucket, proxied, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    there = open_store(f"{bucket}/net")
    for path in Path(tiny_hubert()).iterdir():
        there.put(path.name, path.read_bytes())
    found = extracted(wave(9000), model=f"{bucket}/net")
    assert np.array_equal(found, extracted(wave(9000)))
    planned = choice(model=f"{bucket}/net")
    proxied[1].inject({})
    assert np.array_equal(planned.open()([wave(9000).numpy()])[0], found)
    assert proxied[1].log == []
    there.put("config.json", there.read("config.json") + b"\n")
    with pytest.raises(Stopped, match="have changed since the job was planned"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
        fetched(planned.model, planned.sha256)


# ---- GPT-SoVITS' step 1B ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples, halved, frames", [
    (32_000, 16_000, 49), (32_001, 16_001, 49), (31_999, 16_000, 49), (96_000, 48_000, 149), (320_000, 160_000, 499),
])  # fmt: skip
def test_two_samples_of_gpt_sovits_make_one_and_the_clock_knows(samples, halved, frames):
    assert len(gpt_sovits_level.for_hubert(wave(samples).numpy())) == halved
    assert choice(input="gpt_sovits").clock.frames(samples) == frames == frames_of(halved)


@pytest.mark.parametrize("peak, heard, kept", [
    (0.5, 830.2266, 23756), (1.0, 1116.5115, 31948), (1.05, None, 32767), (1.1, None, 32767), (2.2, None, 32767),
])  # fmt: skip
def test_the_level_of_gpt_sovits_is_the_published_one_and_saturates(peak, heard, kept):
    sound = np.array([0.1 * peak, peak, 0], np.float32)
    if heard is not None:
        assert gpt_sovits_level.rescaled(sound, gpt_sovits_level.HUBERT_SCALE).max() == pytest.approx(heard, rel=1e-6)
    assert gpt_sovits_level.wav32k(sound).max() == kept


@pytest.mark.parametrize("sound, reason", [(np.full(8000, 2.3), "too_loud"), (np.zeros(8000), "silent")])
def test_what_gpt_sovits_leaves_out_is_a_reject_with_a_reason(sound, reason):
    found = extracted(sound.astype(np.float32), input="gpt_sovits")
    assert isinstance(found, Reject) and found.reason == reason


def test_features_of_gpt_sovits_are_the_formulas_through_the_net():
    import soxr

    sound = wave(48_000).numpy()
    peak = np.abs(sound).max()
    level = (sound / peak * (0.95 * 0.5 * 1145.14)) + ((1 - 0.5) * 1145.14) * sound
    right = theirs("Base", torch.tensor(soxr.resample(level, 32_000, 16_000, quality="HQ")), (2,))
    assert relative(torch.tensor(extracted(sound, input="gpt_sovits")), right) < 1e-5


# ---- a job --------------------------------------------------------------------------------------------------------


def test_a_job_gives_the_features_of_each_clip_alone(corpus, tmp_path):
    feature = "feature={kind: hubert, model: " + tiny_hubert() + ", layer: [1, 2]}"
    job = words(corpus, tmp_path / "store", feature, "clip.max_s=30", "window=null", "keep=[feature]")
    dataset = run_inline(job)
    rows = rows_of(job, dataset)
    assert dataset.counts.done == rows.num_rows > 3
    other = words(corpus, tmp_path / "other", feature, "clip.max_s=30", "window=null", "keep=[feature]")
    assert digest(rows_of(other, run_inline(other))) == digest(rows)
