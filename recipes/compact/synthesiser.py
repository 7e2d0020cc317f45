"""Sound of a voice from its control tracks: a source-filter synthesiser after Fant 1960 and Klatt 1980.

Glottal pulses and noise, each shaped by a spectrum that follows the tracks: the tilt of the source, five
formants, the hiss of fricatives. Spectra are applied to overlapping windows without phase, which the prosody
encoder does not hear.

`record` adds what a room, a microphone and a codec do to a voice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RATE_HZ", "TRACK_HZ", "Tracks", "record", "synthesise"]

RATE_HZ: Final = 16_000
TRACK_HZ: Final = 200
WINDOW: Final = 512  # 32 ms
HOP: Final = 160
FFT_SIZE: Final = 1024
FREQUENCIES: Final = np.fft.rfftfreq(FFT_SIZE, 1 / RATE_HZ)
TILT_FROM_HZ: Final = 150.0
MOUTH_DB_PER_OCTAVE: Final = -6.0  # the glottis gives -12, the lips' radiation +6


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """What a voice does, 200 times a second; all (T,) but formants and bandwidths, (T, 5)."""

    f0_hz: NDArray[np.float64]
    voice: NDArray[np.float64]  # amplitude of the glottal source
    breath: NDArray[np.float64]  # amplitude of noise at the glottis, which passes the formants too
    hiss: NDArray[np.float64]  # amplitude of noise at a constriction
    hiss_hz: NDArray[np.float64]  # where that noise is strongest
    tilt_db: NDArray[np.float64]  # per octave, added to the ordinary voice's; above 0 is louder, pressed
    formants_hz: NDArray[np.float64]
    bandwidths_hz: NDArray[np.float64]


def synthesise(
    tracks: Tracks, jitter: float, shimmer: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The sound, 80 samples a track step, at a level of about 0.1 for a `voice` of 1.

    Args:
        tracks: what the voice does.
        jitter: relative deviation of successive periods; 0.01 is an ordinary voice.
        shimmer: the same of their amplitudes.
        rng: noise and irregularities.
    """
    samples = len(tracks.f0_hz) * RATE_HZ // TRACK_HZ
    at = np.arange(samples) * (TRACK_HZ / RATE_HZ)
    steps = np.arange(len(tracks.f0_hz))
    f0_hz, voice, breath, hiss = (
        np.interp(at, steps, track) for track in (tracks.f0_hz, tracks.voice, tracks.breath, tracks.hiss)
    )
    frames = np.minimum(np.arange(0, samples + WINDOW, HOP) * TRACK_HZ // RATE_HZ, len(steps) - 1)
    formants = _formants(tracks.formants_hz[frames], tracks.bandwidths_hz[frames])
    octaves = np.log2(np.maximum(FREQUENCIES, TILT_FROM_HZ) / TILT_FROM_HZ)
    slope = (MOUTH_DB_PER_OCTAVE + tracks.tilt_db[frames])[:, None] * octaves
    pulses = _pulses(f0_hz, jitter, shimmer, rng) * voice
    sound = _filtered(pulses, formants * 10 ** (slope / 20))
    sound += _filtered(rng.normal(0.0, 0.1, samples) * breath, formants * 10 ** (-3.0 * octaves / 20))
    width = 0.35 * tracks.hiss_hz[frames]
    shape = 1 / (1 + ((FREQUENCIES - tracks.hiss_hz[frames][:, None]) / width[:, None]) ** 2)
    sound += _filtered(rng.normal(0.0, 0.3, samples) * hiss, shape)
    return sound.astype(np.float32)


def _pulses(
    f0_hz: NDArray[np.float64], jitter: float, shimmer: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """One pulse a period, of like energy a second whatever the pitch."""
    periods = np.cumsum(f0_hz / RATE_HZ)
    count = int(periods[-1])
    marks = np.interp(
        np.arange(1, count + 1) + rng.normal(0.0, jitter, count), periods, np.arange(len(f0_hz))
    )
    heights = np.clip(rng.normal(1.0, shimmer, count), 0.2, 2.0)
    pulses = np.zeros(len(f0_hz) + 1)
    whole = np.clip(marks.astype(int), 0, len(f0_hz) - 1)
    part = marks - whole
    np.add.at(pulses, whole, heights * (1 - part))
    np.add.at(pulses, whole + 1, heights * part)
    result: NDArray[np.float64] = pulses[:-1] * np.sqrt(100.0 / f0_hz)
    return result


def _formants(centres_hz: NDArray[np.float64], widths_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vocal tract's gain at `FREQUENCIES`, (T, 513): resonances in cascade, each 1 at 0 Hz."""
    gain = np.ones((len(centres_hz), len(FREQUENCIES)))
    for formant in range(centres_hz.shape[1]):
        centre, width = centres_hz[:, formant, None], widths_hz[:, formant, None]
        gain /= np.sqrt((centre**2 - FREQUENCIES**2) ** 2 + (FREQUENCIES * width) ** 2) / centre**2
    return gain


def _filtered(sound: NDArray[np.float64], gain: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sound with a gain (frames, 513) that follows it, one row every `HOP` samples."""
    window = np.hanning(WINDOW + 1)[:-1]
    padded = np.concatenate((np.zeros(WINDOW // 2), sound, np.zeros(2 * WINDOW)))
    rows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: len(gain)]
    rows = (rows * window).astype(np.float32)
    shaped = np.fft.irfft(np.fft.rfft(rows, FFT_SIZE) * gain[: len(rows)].astype(np.float32), FFT_SIZE)
    shaped = np.roll(shaped, (FFT_SIZE - WINDOW) // 2, axis=1)  # room on both sides for the filter's response
    result = np.zeros(len(rows) * HOP + FFT_SIZE)
    for row, values in enumerate(shaped):
        result[row * HOP : row * HOP + FFT_SIZE] += values
    start = WINDOW // 2 + (FFT_SIZE - WINDOW) // 2
    scale = window.sum() / HOP
    cut: NDArray[np.float64] = result[start : start + len(sound)] / scale
    return cut


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
