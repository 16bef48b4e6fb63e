"""Speaking: frames back into sound, and a codebook as its own decoder."""

import io
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from wavmill.model.clock import Clock
from wavmill.model.griffin_lim import griffin_lim
from wavmill.model.quantization.codebook import Codebook
from wavmill.model.quantization.kmeans import assign, fit
from wavmill.pipeline.contracts import Extractor
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.features.mfcc import Mfcc
from wavmill.pipeline.features.vocoder import NoVoice, Voice, voice, wav_bytes
from wavmill.pipeline.job.dataset_job import described
from wavmill.pipeline.rows import ragged

NEAR = 0.15  # nepers, mean distance of log-mels: half of what noise with another seed is away


def codebook_of(extractor, centroids: np.ndarray) -> Codebook:
    return Codebook(centroids, {"channel": "mean", "feature": described(extractor)}, {})


@pytest.fixture(scope="module")
def spoken(tone) -> tuple[Voice, np.ndarray, np.ndarray]:
    """A voice learnt on two tones, with the mel frames (T, 80) and codes (T,) of one of them."""
    frames = [clip[:, 0] for clip in Mel().open()([tone(2.0), tone(2.0, hz=500, seed=1)])]
    centroids, _ = fit(np.concatenate(frames), 60, 0)
    made = voice(codebook_of(Mel(), centroids))
    return made, frames[0], assign(frames[0], centroids)


def mel_of(wave: np.ndarray) -> np.ndarray:
    [frames] = Mel().open()([wave])
    return frames[:, 0]


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """The mean distance of two log-mels over the frames that both have."""
    both = min(len(one), len(two))
    return float(np.abs(one[:both] - two[:both]).mean())


def test_frames_turned_into_sound_and_back_are_nearly_the_same(tone):
    frames = mel_of(tone(1.5))
    assert apart(mel_of(Mel().sound(frames)), frames) < NEAR
    assert apart(mel_of(tone(1.5, seed=9)), frames) > 2 * NEAR


def test_a_feature_column_sounds_like_its_frames(tone):
    frames = mel_of(tone(0.5))
    assert (Mel().sound(frames[:, None]) == Mel().sound(frames)).all()


@pytest.mark.parametrize("frames", [0, 1, 2, 75])
def test_a_sound_has_one_hop_of_samples_for_each_frame(frames, tone):
    made = Mel().sound(mel_of(tone(1.5))[:frames])
    assert made.dtype == np.float32 and made.shape == (320 * frames,) and np.isfinite(made).all()


def test_tokens_sound_like_the_clip_they_were_made_of(spoken, tone):
    speak, frames, codes = spoken
    made = speak(codes)
    assert (speak.rate_hz, len(made)) == (16_000, 320 * len(codes))
    assert apart(mel_of(made), frames) < 3 * NEAR < apart(mel_of(made), mel_of(tone(2.0, hz=500, seed=1)))


def test_the_same_tokens_always_sound_the_same(spoken):
    speak, _, codes = spoken
    assert (speak(codes) == speak(codes)).all()


def test_nothing_is_spoken_louder_than_full_scale():
    speak = voice(codebook_of(Mel(), np.full((2, 80), 6.0, np.float32)))
    assert np.abs(speak(np.zeros(20, np.uint16))).max() <= 1


def test_features_without_a_way_back_say_so():
    with pytest.raises(NoVoice, match=r"^mfcc features need a vocoder to become sound, and wavmill has none$"):
        voice(codebook_of(Mfcc(), np.zeros((2, 39), np.float32)))


def test_another_version_of_the_features_is_not_spoken():
    codebook = codebook_of(Mel(), np.zeros((2, 80), np.float32))
    codebook.recipe["feature"]["version"] = 99
    with pytest.raises(NoVoice, match="version 99"):
        voice(codebook)


def test_an_extractor_that_is_not_there_is_named():
    codebook = codebook_of(Mel(), np.zeros((2, 80), np.float32))
    codebook.recipe["feature"] = {"kind": "x", "version": 1, "class": "no_such_module:Thing"}
    with pytest.raises(
        NoVoice, match=r"^its features were made by no_such_module:Thing, which cannot be imported here$"
    ):
        voice(codebook)


class Buzz(Extractor):
    """An extractor from outside that can speak: a frame is how loud 8 samples are."""

    kind: str = "buzz"
    loud: float = 1.0
    clock: ClassVar[Clock] = Clock(rate_hz=8000, hop_samples=8, window_samples=8, centred=False)

    @property
    def type(self):
        return ragged(np.float32, 1, 1)

    @property
    def decodable(self) -> bool:
        return True

    def open(self):
        raise NotImplementedError

    def sound(self, frames):
        return np.repeat(self.loud * frames[:, 0], 8)


def test_a_class_from_outside_speaks_with_its_own_options():
    speak = voice(codebook_of(Buzz(loud=0.5), np.array([[0.0], [1.0]], np.float32)))
    assert (speak.rate_hz, speak.frames_hz) == (8000, 1000)
    assert speak(np.array([1, 0])).tolist() == [0.5] * 8 + [0.0] * 8


def test_a_wav_holds_the_sound_in_16_bits(tone):
    wave = tone(0.2)
    read, rate_hz = soundfile.read(io.BytesIO(wav_bytes(wave, 16_000)), dtype="float32")
    assert rate_hz == 16_000 and np.abs(read - wave).max() <= 1 / 32768


@pytest.mark.parametrize("frames", [2, 3, 40])
def test_the_way_from_magnitudes_to_sound_is_librosas(frames, tone):
    """Rounding apart: after few rounds, for each round makes the last bits of the one before larger."""
    import librosa

    stft = np.abs(librosa.stft(tone(1.0), n_fft=800, hop_length=320))[:, 5 : 5 + frames]
    for rounds in (1, 2, 8):
        right = librosa.griffinlim(stft, n_iter=rounds, hop_length=320, random_state=0)
        made = griffin_lim(stft.T, 320, rounds)
        assert made.dtype == np.float32 and made.shape == right.shape
        assert np.abs(made - right).max() < 1e-3 * np.abs(right).max()


def test_a_mel_turns_into_sound_without_what_is_slow_to_import():
    code = (
        "import sys, numpy as np; from wavmill.pipeline.features.mel import Mel; Mel().sound(np.zeros((5, 80)));"
        "sys.exit(str([*{'librosa', 'numba', 'torch', 'scipy.signal', 'scipy.stats'} & {*sys.modules}] or ''))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
