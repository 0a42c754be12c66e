"""Waveform to log-mel spectrogram and back, in NumPy and SciPy.

The way back is least squares for the linear magnitudes and Griffin-Lim for the phases (D. Griffin, J. Lim, "Signal
estimation from modified short-time Fourier transform", IEEE Trans. ASSP 32 (1984), with the momentum of N. Perraudin,
P. Balazs, P. Sondergaard, "A fast Griffin-Lim algorithm", WASPAA 2013).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from etils import epy
from jaxtyping import Complex64, Float32

with epy.lazy_imports():  # an extra
    import scipy.fft

_MOMENTUM = 0.99


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """Log-mel analysis and its inversion.

    Frame `t` is centred on the samples `t * hop_samples .. (t + 1) * hop_samples`; outside its ends a waveform is zero.

    Attributes:
        sample_rate_hz: of the waveform.
        window_samples: length of the Hann window and of the Fourier transform.
        hop_samples: from one frame to the next.
        mels: number of mel bands between 0 and half the sample rate.
        floor: smaller magnitudes are silence; a full-scale tone has 1.
    """

    sample_rate_hz: int
    window_samples: int
    hop_samples: int
    mels: int
    floor: float = 1e-3

    @functools.cached_property
    def _window(self) -> Float32[np.ndarray, " window"]:
        turns = (np.arange(self.window_samples) + 0.5) / self.window_samples
        return (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)

    @functools.cached_property
    def _bank(self) -> Float32[np.ndarray, "mels bins"]:
        return mel_bank(self.sample_rate_hz, self.window_samples, self.mels)

    @property
    def _lead(self) -> int:
        return (self.window_samples - self.hop_samples) // 2

    def log_mel(self, waveform: Float32[np.ndarray, " samples"], frames: int) -> Float32[np.ndarray, "frames mels"]:
        """Natural logarithms of mel magnitudes; a full-scale tone (-1 to 1) has about 0.

        The waveform is padded with zeros, or cut, to `frames * hop_samples`.
        """
        return np.log(np.maximum(np.abs(self._stft(waveform, frames)) @ self._bank.T, self.floor))

    def waveform(
        self, log_mel: Float32[np.ndarray, "frames mels"], iterations: int
    ) -> Float32[np.ndarray, " frames*hop_samples"]:
        """A waveform with about this log-mel spectrogram, as `log_mel` gives it.

        The phases of Griffin-Lim start from a fixed seed, so the result repeats exactly.
        """
        frames, mel = len(log_mel), np.exp(log_mel)
        mel = np.where(mel <= 1.05 * self.floor, 0, mel)
        magnitude = np.maximum(mel @ np.linalg.pinv(self._bank.astype(np.float64)).astype(np.float32).T, 0)
        for _ in range(30):  # multiplicative updates towards the non-negative least-squares solution
            magnitude *= (mel @ self._bank) / np.maximum(magnitude @ self._bank.T @ self._bank, 1e-8)
        phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape)).astype(np.complex64)
        previous = np.zeros_like(phase)
        for _ in range(iterations):
            rebuilt = self._stft(self._inverse_stft(magnitude * phase), frames)
            phase = rebuilt + _MOMENTUM * (rebuilt - previous)
            phase /= np.maximum(np.abs(phase), 1e-8)
            previous = rebuilt
        return self._inverse_stft(magnitude * phase)

    def _stft(self, waveform: Float32[np.ndarray, " samples"], frames: int) -> Complex64[np.ndarray, "frames bins"]:
        padded = np.zeros(frames * self.hop_samples + self.window_samples, np.float32)
        count = min(len(waveform), frames * self.hop_samples)
        padded[self._lead : self._lead + count] = waveform[:count]
        pieces = np.lib.stride_tricks.sliding_window_view(padded, self.window_samples)[:: self.hop_samples][:frames]
        # Scaled so that the magnitude of a tone is its amplitude, whatever the window.
        return scipy.fft.rfft(pieces * (self._window * (2 / self._window.sum())), axis=-1)

    def _inverse_stft(self, spectrum: Complex64[np.ndarray, "frames bins"]) -> Float32[np.ndarray, " samples"]:
        frames, hop = len(spectrum), self.hop_samples
        pieces = scipy.fft.irfft(spectrum, self.window_samples, axis=-1) * self._window
        total, weight = np.zeros((2, frames * hop + self.window_samples), np.float32)
        for frame in reversed(range(frames)):
            total[frame * hop : frame * hop + self.window_samples] += pieces[frame]
            weight[frame * hop : frame * hop + self.window_samples] += self._window**2
        total *= self._window.sum() / 2 / np.maximum(weight, 1e-3)
        return total[self._lead : self._lead + frames * hop]


def mel_bank(sample_rate_hz: int, window_samples: int, mels: int) -> Float32[np.ndarray, "mels bins"]:
    """Returns triangular bands, equally wide on the mel scale `2595 log10(1 + f / 700)`, each with unit sum.

    A band narrower than the distance of two bins takes the nearest bin, so that no row is empty.
    """
    top = 2595 * np.log10(1 + sample_rate_hz / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(window_samples, 1 / sample_rate_hz)
    rising = (bins_hz - edges_hz[:-2, None]) / (edges_hz[1:-1] - edges_hz[:-2])[:, None]
    falling = (edges_hz[2:, None] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])[:, None]
    bank = np.maximum(np.minimum(rising, falling), 0)
    empty = bank.sum(axis=1) == 0
    bank[empty, np.abs(bins_hz - edges_hz[1:-1, None]).argmin(axis=1)[empty]] = 1
    return (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)
