"""What a room, a microphone and a codec do to a voice before the encoder hears it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.training.compact.synthesiser import RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["record"]

FLOOR_DBFS: Final = -95.0


def record(sound: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The sound as some microphone somewhere would give it, in [-1, 1]: room, noise, channel, gain."""
    spectrum_size = 1 << (len(sound) + RATE_HZ // 2).bit_length()
    spectrum = np.fft.rfft(sound, spectrum_size)
    frequencies = np.linspace(0.0, RATE_HZ / 2, len(spectrum))
    if rng.random() < 0.6:
        spectrum *= np.fft.rfft(_room(rng), spectrum_size)
    spectrum *= _channel(frequencies, rng)
    heard = np.fft.irfft(spectrum, spectrum_size)[: len(sound)]
    heard /= max(float(np.sqrt(np.square(heard).mean())), 1e-6)
    if rng.random() < 0.25:
        heard += _crowd(heard, rng) * 10 ** (-rng.uniform(6.0, 26.0) / 20)
    heard += _noise(len(sound), rng) * 10 ** (-rng.uniform(6.0, 60.0) / 20)
    heard *= 10 ** (rng.uniform(-42.0, -12.0) / 20)
    heard += rng.normal(0.0, 10 ** (FLOOR_DBFS / 20), len(heard))
    return np.clip(heard, -1.0, 1.0).astype(np.float32)


def _room(rng: np.random.Generator) -> NDArray[np.float64]:
    """An impulse response: the direct sound and a decaying tail of 0.1–0.6 s."""
    seconds = rng.uniform(0.1, 0.6)
    tail = rng.normal(size=int(seconds * RATE_HZ))
    tail *= np.exp(-6.9 * np.arange(len(tail)) / len(tail))
    tail *= rng.uniform(0.1, 0.8) / np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    return tail


def _channel(frequencies: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A microphone's and a codec's gain: smooth bumps, a lower end, an upper end that may be low."""
    octaves = np.log2(np.maximum(frequencies, 30.0) / 30.0)
    knots = np.linspace(0, 8.2, 7)
    gain_db = np.interp(octaves, knots, rng.normal(0.0, 4.0, len(knots))) + rng.normal(0.0, 1.0) * octaves
    low, high = rng.uniform(30.0, 150.0), rng.choice([3400.0, 5500.0, 7900.0], p=[0.1, 0.2, 0.7])
    gain_db -= 12 * np.log2(np.maximum(low / np.maximum(frequencies, 1.0), 1.0))
    gain_db -= 40 * np.log2(np.maximum(frequencies / high, 1.0))
    gain: NDArray[np.float64] = 10 ** (gain_db / 20)
    return gain


def _crowd(voice: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Voices of others, of deviation about 1: pieces of this one, backwards, at other speeds."""
    crowd = np.zeros(len(voice))
    for _ in range(int(rng.integers(2, 7))):
        at = np.arange(len(voice)) * rng.uniform(0.8, 1.3) + rng.integers(len(voice))
        crowd += np.interp(at % len(voice), np.arange(len(voice)), voice[::-1])
    return crowd / max(float(crowd.std()), 1e-6)


def _noise(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of a room, of deviation 1: from white to brown, perhaps with the hum of mains."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    spectrum *= np.maximum(frequencies, 40.0) ** -rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum, samples)
    noise /= noise.std()
    if rng.random() < 0.2:
        hum = np.sin(2 * np.pi * rng.choice([50.0, 60.0, 100.0]) * np.arange(samples) / RATE_HZ)
        noise = 0.7 * noise + 0.7 * hum
    return noise
