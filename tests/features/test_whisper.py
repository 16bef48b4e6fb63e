"""Whisper's states are upstream's: the two recipes of MuseTalk, each beside a restatement of it in plain torch."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import tiny_hubert, tiny_whisper, whisper_net
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import rows_of, run_inline

from wavmill.model.whisper_mel import v1, v1_5
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.features.whisper import Whisper
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job

V1, V1_5 = "musetalk-v1", "musetalk-v1.5"
both = pytest.mark.parametrize("states", [V1, V1_5])


@lru_cache
def ours(states: str, dtype: str = "float32", at_rest: str = "float32"):
    return Whisper(model=tiny_whisper(), states=states, dtype=dtype, at_rest=at_rest).resolved().open()


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that grows, so that the loudest of a clip is not the loudest of each of its 30 s."""
    noise = np.random.default_rng(seed).normal(size=samples) * np.linspace(0.002, 0.3, samples) ** 2
    return noise.astype(np.float32)


def states_of(mel: torch.Tensor, normed: bool) -> torch.Tensor:
    """(80, 3000) -> (1500, 5, D) by transformers' own encoder, block after block."""
    encoder, seen = whisper_net().encoder, []
    hooks = [encoder.layers[-1].register_forward_hook(lambda _m, _i, out: seen.append(out))]
    with torch.inference_mode():
        found = encoder(mel[None], output_hidden_states=True).hidden_states
        hooks[0].remove()
        last = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        assert torch.equal(found[-1], encoder.layer_norm(last)), "transformers' last state is the one behind the norm"
    return torch.stack([*found[:-1], found[-1] if normed else last.reshape(found[-1].shape)], 2)[0]


def as_v1(wave: np.ndarray) -> np.ndarray:
    """Audio2Feature.audio2feat, as it is described: one mel, cut, filled up with 0.0."""
    import librosa

    window = torch.hann_window(400)
    power = torch.stft(torch.tensor(wave), 400, 160, window=window, return_complex=True)[..., :-1].abs() ** 2
    filters = torch.tensor(librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80))
    log = (filters @ power).clamp(min=1e-10).log10()
    mel = (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0
    made = []
    for seek in range(0, mel.shape[1], 3000):
        some = mel[:, seek : seek + 3000]
        full = torch.nn.functional.pad(some, (0, 3000 - some.shape[1]))
        made.append(states_of(full, normed=False)[: int(some.shape[1] / 2)])
    return torch.cat(made).numpy()


def as_v1_5(wave: np.ndarray) -> np.ndarray:
    """AudioProcessor.get_audio_feature by transformers' own feature extractor, cut to the steps that the sound has."""
    from transformers import WhisperFeatureExtractor

    prepare, made = WhisperFeatureExtractor(), []
    for start in range(0, len(wave), 480_000):
        piece = wave[start : start + 480_000]
        mel = prepare(piece, return_tensors="pt", sampling_rate=16_000).input_features[0]
        made.append(states_of(mel, normed=True))
    return torch.cat(made)[: len(wave) // 320].numpy()


def relative(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


@pytest.mark.parametrize("samples", [320, 16_000, 18_560, 479_999, 500_000])
@pytest.mark.parametrize(("states", "restated"), [(V1, as_v1), (V1_5, as_v1_5)])
def test_states_are_upstream_s(states, restated, samples):
    wave = sound(samples)
    [found] = ours(states)([wave])
    right = restated(wave)
    assert found.shape == right.shape == (samples // 320, 5, 48)
    assert relative(found, right) < 1e-5


@pytest.mark.parametrize(
    ("samples", "steps"),
    [(16_000, 50), (15_999, 49), (16_160, 50), (480_000, 1500), (480_160, 1500), (480_320, 1501), (1_000_000, 3125)],
)
@pytest.mark.parametrize("recipe", [v1, v1_5])
def test_a_sound_has_as_many_steps_as_the_published_vectors_say(recipe, samples, steps):
    assert sum(count for _, count in recipe(sound(samples), 80)) == steps == Whisper.clock.frames(samples)


@pytest.mark.parametrize(("samples", "mels"), [(201, 1), (320, 2), (16_000, 100)])
def test_a_mel_of_v1_has_as_many_frames_as_the_vectors_say(samples, mels):
    from wavmill.model.whisper_mel import log_mel

    assert log_mel(sound(samples), 80).shape == (80, mels)


def test_silence_is_minus_one_and_a_half_in_v1_5_and_the_rest_of_a_loud_clip_is_not():
    [(mel, steps)] = v1_5(np.zeros(480_000, np.float32), 80)
    assert steps == 1500 and np.allclose(mel, -1.5, atol=1e-6)
    loud = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    [(filled, _)], [(padded, _)] = v1_5(loud, 80), v1(loud, 80)
    assert (padded[:, 100:] == 0).all()
    assert np.allclose(filled[:, 200:], -0.56, atol=0.01)


def test_the_two_recipes_are_not_each_other_s_numbers():
    wave = sound(40_000)
    [a], [b] = ours(V1)([wave]), ours(V1_5)([wave])
    assert relative(a[:, 0], b[:, 0]) > 0 and relative(a[:, 1:], b[:, 1:]) > 1e-3


@both
@settings(deadline=None, max_examples=4)
@given(st.lists(st.sampled_from([320, 5_000, 16_001, 481_000]), min_size=2, max_size=3), st.integers(0, 99))
def test_company_changes_no_bit(states, lengths, seed):
    waves = [sound(samples, seed + i) for i, samples in enumerate(lengths)]
    together = ours(states)(waves)
    for wave, found in zip(waves, together, strict=True):
        assert np.array_equal(ours(states)([wave])[0], found)


@both
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_and_comes_as_asked(states, dtype):
    wave = sound(30_000)
    [right], [found] = ours(states)([wave]), ours(states, dtype, "float16")([wave])
    assert found.dtype == np.float16 and relative(found.astype(np.float32), right) < 0.05


@both
def test_what_is_shorter_than_a_step_is_rejected(states):
    """Upstream's mirrored edges take 201 samples, and below 320 it has no step."""
    *none, some = ours(states)([sound(samples) for samples in (1, 200, 319, 320)])
    assert all(isinstance(one, Reject) and one.reason == "too_short" for one in none) and some.shape == (1, 5, 48)


def test_a_checkpoint_of_another_kind_is_an_error_that_says_so(tmp_path):
    with pytest.raises(JobError, match="model_type is 'hubert'; 'whisper' can be extracted"):
        Whisper(model=tiny_hubert(), states=V1).resolved()
    with pytest.raises(JobError, match=r"feature\.dim is 384; that of .* is 48"):
        Whisper(model=tiny_whisper(), states=V1, dim=384).resolved()
    config = (Path(tiny_whisper()) / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(JobError, match="no weights"):
        Whisper(model=str(tmp_path), states=V1).resolved()


def test_a_part_of_a_long_sound_is_what_upstream_makes_of_a_file_that_is_the_part(tmp_path, wav):
    """MuseTalk cuts its videos before it listens: no context, and segments that begin with the part."""
    whole = sound(16_000 * 7)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "long.wav").write_bytes(wav(whole, subtype="FLOAT"))
    text = (
        f"name: states\nsource: {{kind: files, path: {tmp_path}/in}}\nclip: {{max_s: 3}}\nstore: {tmp_path}/out\n"
        f"feature: {{kind: whisper, model: {tiny_whisper()}, states: {V1}}}\n"
    )
    job = resolve(parse_job(text))
    rows = rows_of(job, run_inline(job)).to_pylist()
    assert [row["clip"] for row in rows] == ["long.wav#0", "long.wav#3000", "long.wav#6000"]
    for row, part in zip(rows, np.split(whole, [48_000, 96_000]), strict=True):
        found = np.array(row["feature"], np.float32).reshape(len(row["feature"]), 5, 48)
        assert np.array_equal(found, ours(V1)([part])[0])
