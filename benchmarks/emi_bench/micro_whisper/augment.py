"""What rooms, telephones and machines do to speech, and sound that is no speech at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.speech.synthetic import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["augment", "no_speech"]

NOISE_SHARE: Final = 0.6
REVERB_SHARE: Final = 0.2
BAND_SHARE: Final = 0.2
SNR_DB: Final = (5.0, 40.0)
GAIN_DB: Final = (-24.0, 4.0)


def augment(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Speech, shape (n,), as a microphone somewhere might give it; times stay as they are."""
    changed = samples
    if rng.random() < REVERB_SHARE:
        changed = _in_a_room(changed, rng)
    if rng.random() < NOISE_SHARE:
        level = float(np.sqrt(np.mean(np.square(changed)))) + 1e-4
        noise = _noise(changed.size, rng)
        changed = changed + noise * level * _factor(-rng.uniform(*SNR_DB))
    if rng.random() < BAND_SHARE:
        low, high = (300.0, 3400.0) if rng.random() < 0.5 else (float(rng.uniform(0, 200)), 5000.0)
        changed = _band(changed, low, high)
    changed = changed * _factor(rng.uniform(*GAIN_DB))
    return np.clip(changed, -1.0, 1.0).astype(np.float32)


def no_speech(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Silence, noise, hum, tones or clicks, shape (size,)."""
    kind = int(rng.integers(6))
    level = _factor(rng.uniform(-60.0, -10.0))
    sound: NDArray[np.floating]
    if kind == 0:
        return np.zeros(size, np.float32)
    if kind <= 2:
        sound = _noise(size, rng)
    elif kind == 3:
        sound = _music(size, rng)
    elif kind == 4:
        sound = _hum(size, rng) + _noise(size, rng) * _factor(rng.uniform(-40.0, 0.0))
    else:
        sound = _clicks(size, rng)
    if rng.random() < 0.3:  # loud and quiet by turns
        knots = rng.uniform(0.0, 1.0, max(2, size // 4_000))
        sound = sound * np.interp(np.linspace(0, 1, size), np.linspace(0, 1, knots.size), knots)
    return np.asarray(np.clip(sound * level, -1.0, 1.0), np.float32)


def _factor(db: float) -> float:
    return float(10.0 ** (db / 20.0))


def _noise(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """White to brown noise of unit power, now and then with hum."""
    spectrum = np.fft.rfft(rng.standard_normal(_quick(size), np.float32))
    bins = np.arange(spectrum.size, dtype=np.float32)
    noise = np.fft.irfft(spectrum * (bins + 8.0) ** np.float32(-rng.uniform(0.0, 1.0)))[:size]
    if rng.random() < 0.2:
        noise = noise / (noise.std() + 1e-9) + _hum(size, rng)
    unit: NDArray[np.float32] = (noise / (noise.std() + 1e-9)).astype(np.float32)
    return unit


def _hum(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    t_s = np.arange(size, dtype=np.float32) / SAMPLE_RATE_HZ
    base = float(rng.choice([50.0, 60.0, rng.uniform(80.0, 400.0)]))
    phases = rng.uniform(0, 2 * np.pi, 8)
    hum = sum(np.sin(2 * np.pi * base * n * t_s + phases[n - 1]) / n**1.5 for n in range(1, 9))
    return np.asarray(hum, np.float32)


def _music(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Chords that are struck and fade."""
    sound = np.zeros(size, np.float32)
    at = 0
    while at < size:
        length = min(size - at, int(rng.uniform(0.15, 0.8) * SAMPLE_RATE_HZ))
        t_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
        root = 110.0 * 2.0 ** (rng.integers(0, 36) / 12.0)
        for step in (0, int(rng.choice([3, 4])), 7)[: int(rng.integers(1, 4))]:
            pitch = root * 2.0 ** (step / 12.0)
            for n in range(1, 5):
                sound[at : at + length] += np.sin(2 * np.pi * pitch * n * t_s) * np.exp(-4.0 * t_s) / n**1.3
        at += length
    return sound / 3.0


def _clicks(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    sound = np.zeros(size, np.float32)
    for at in rng.integers(0, size, max(1, size // 8_000)):
        length = min(size - int(at), int(rng.integers(40, 1_600)))
        burst = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 4.0))
        sound[at : at + length] += burst.astype(np.float32)
    return sound


def _in_a_room(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Reverberation of 0.1 to 0.5 s; the direct sound stays where it was."""
    length = int(rng.uniform(0.1, 0.5) * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length) * rng.uniform(0.01, 0.06)
    tail[0] = 1.0
    size = _quick(samples.size + length)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: samples.size]
    return np.asarray(wet, np.float32)


def _band(samples: NDArray[np.float32], low_hz: float, high_hz: float) -> NDArray[np.float32]:
    size = _quick(samples.size)
    spectrum = np.fft.rfft(samples, size)
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0.0
    return np.fft.irfft(spectrum, size)[: samples.size].astype(np.float32)


def _quick(size: int) -> int:
    """A length from `size` on whose transform is quick; that of a prime is not."""
    return -(-size // 4_096) * 4_096
