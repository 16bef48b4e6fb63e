"""Griffin and Lim's way from magnitudes to sound, to rounding that of librosa, which takes 4 s to import."""

import numpy as np

from wavmill.model.mel_filters import hann

MOMENTUM = 0.99  # Perraudin, Balazs and Sondergaard (2013): the same sound in fewer rounds


def griffin_lim(magnitudes: np.ndarray, hop_samples: int, rounds: int, seed: int = 0) -> np.ndarray:
    """STFT magnitudes (T, W // 2 + 1) float32 -> a sound (hop * (T - 1),) float32 that has about these.

    Frame t is centred on sample hop * t, under a Hann window of W samples, hop at most W / 2. Phases begin as seeded
    noise, so the same magnitudes always give the same sound.
    """
    from scipy.fft import irfft, rfft

    frames, size = len(magnitudes), 2 * (magnitudes.shape[1] - 1)
    window, hops = hann(size), -(-size // hop_samples)  # of a window, the last one in part

    def added(parts: np.ndarray) -> np.ndarray:  # (T, W), overlapping -> (hop * (T - 1),)
        columns = np.pad(parts, ((0, 0), (0, hops * hop_samples - size))).reshape(frames, hops, hop_samples)
        total = np.zeros((frames + hops - 1, hop_samples), np.float32)
        for k in range(hops):
            total[k : k + frames] += columns[:, k]
        return total.reshape(-1)[size // 2 :][: hop_samples * (frames - 1)]

    weights = added(np.tile(window**2, (frames, 1)))

    def sound(stft: np.ndarray) -> np.ndarray:
        result: np.ndarray = added(irfft(stft, size) * window) / weights
        return result

    noise = np.random.RandomState(seed).random((magnitudes.shape[1], frames)).T
    stft = magnitudes * np.exp(2j * np.pi * noise).astype(np.complex64)
    before = np.zeros_like(stft)
    for step in range(rounds):
        views = np.lib.stride_tricks.sliding_window_view(np.pad(sound(stft), size // 2), size)
        found = rfft(views[::hop_samples] * window)
        ahead = found - np.float32(MOMENTUM / (1 + MOMENTUM)) * before if step else found
        stft = magnitudes * (ahead / (np.abs(ahead) + np.finfo(np.float32).tiny))
        before = found
    return sound(stft)
