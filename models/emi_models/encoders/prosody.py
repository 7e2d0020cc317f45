"""Prosody: log-mel bands, pitch, energy, flux, rhythm and change, 50 times a second, as the sound arrives.

Values are normalised by the mean and variance of the last seconds (`RunningMoments`).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.encoders.rhythm import Rhythm

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CHANGE",
    "ENCODER_ID",
    "ENERGY",
    "ENERGY_CHANGE",
    "F0",
    "F0_SQUARED",
    "FLUX",
    "FRAME_SAMPLES",
    "HOP_SAMPLES",
    "MEL_BANDS",
    "PROSODY_DIM",
    "RHYTHM",
    "SCALE",
    "SOUND_RHYTHM",
    "VOICING",
    "ProsodyEncoder",
    "RunningMoments",
    "mel_bank",
]

ENCODER_ID: Final = "emi-live/prosody-73@1"
RATE_HZ: Final = 16_000
FRAME_SAMPLES: Final = 400  # 25 ms
HOP_SAMPLES: Final = 320  # 20 ms
MEL_BANDS: Final = 64
# Columns after the bands.
F0, VOICING, ENERGY, FLUX, RHYTHM, SOUND_RHYTHM, CHANGE, ENERGY_CHANGE, F0_SQUARED = range(
    MEL_BANDS, MEL_BANDS + 9
)
PROSODY_DIM: Final = MEL_BANDS + 9

FFT_SIZE: Final = 1024  # zero-padded: 16 Hz per bin, so that the narrowest band has one
MEL_RANGE_HZ: Final = (60.0, 7600.0)
POWER_FLOOR: Final = 1e-6  # what white noise at -60 dBFS gives in a band of one bin

# F0 needs two periods of the lowest voice: it looks 50 ms back from the frame's end, never ahead.
CONTEXT_SAMPLES: Final = 800
F0_RANGE_HZ: Final = (65.0, 500.0)  # from above the hum of 50 and 60 Hz mains
SHORTEST_LAG: Final = round(RATE_HZ / F0_RANGE_HZ[1])
LONGEST_LAG: Final = math.ceil(RATE_HZ / F0_RANGE_HZ[0])
F0_WINDOW: Final = CONTEXT_SAMPLES - LONGEST_LAG - 1  # samples compared with themselves a lag earlier
OCTAVE_COST: Final = (
    0.08  # taken off a peak per octave below the highest F0: T explains sound as well as 2T does
)
VOICED: Final = 0.5  # correlation from which F0 is believed
REFERENCE_HZ: Final = 200.0
SILENCE_POWER: Final = 1e-8  # -80 dBFS: correlation below it counts as noise

# Fixed, so that a feature means the same in every run: mean and deviation, rounded, of the 2,742 frames in
# which a person speaks in ten clips of English, read and in public address, recorded with different
# microphones.
MEL_MEAN: Final = -8.0
MEL_DEVIATION: Final = 3.5
ENERGY_MEAN_DB: Final = -28.0
ENERGY_DEVIATION_DB: Final = 10.0
ENERGY_FLOOR_DB: Final = -70.0
FLUX_MEAN: Final = 0.6
FLUX_DEVIATION: Final = 0.65
CHANGE_FRAMES: Final = 5  # 100 ms
SCALE: Final = 2.0  # of changes and F0 squared, which are then about 1 in speech
# What a rhythm's squared differences are compared with: of voicing, and of the bands.
VOICING_FLOOR: Final = 0.005
BANDS_FLOOR: Final = 0.025


class ProsodyEncoder:
    """Turns one stream of 16 kHz mono sound into frames of 73 features, each from the past alone.

    Frame k covers samples [320k, 320k + 400) since the last `reset`. Columns:

    - 0–63: ln(mel power + 1e-6), Hann window, 60–7600 Hz, minus `MEL_MEAN`, over `MEL_DEVIATION`;
    - 64: F0 as log2(Hz / 200), an octave is 1; 0 when unvoiced;
    - 65: voicing, the normalised correlation at the best pitch period, in [0, 1];
    - 66: energy, (dBFS + 28) / 10, not below -70 dBFS;
    - 67: spectral flux, the mean rise of the log-mel bands since the frame before, standardised too;
    - 68: rhythm of voicing, in [0, 1): how regularly it repeats, 4 to 8 times a second (`Rhythm`);
    - 69: the same of every second band;
    - 70: change in 100 ms: the mean difference of the bands, their mean taken off, without sign, times 2;
    - 71: change of energy since the frame before, without sign, times 2;
    - 72: column 64 squared, times 2: a mean of it says how far F0 spreads, which a mean of F0 does not.

    Frames depend on earlier frames but not on pushes, so any way to cut the stream gives the same bits. All
    is done with numpy, because a thread pool costs more than this arithmetic. One thread at a time.
    """

    def __init__(self) -> None:
        self._hann = np.hanning(FRAME_SAMPLES + 1)[:-1].astype(np.float32)  # periodic, as torch has it
        # Over the window's energy, a band reads as the power within it.
        self._mel: NDArray[np.float32] = mel_bank() / np.float32(np.square(self._hann).sum())  # (64, 513)
        self._lags = np.arange(LONGEST_LAG + 1, SHORTEST_LAG - 2, -1)
        self._cost = OCTAVE_COST * np.log2(self._lags / SHORTEST_LAG)
        self._voicing_rhythm = Rhythm(1, VOICING_FLOOR)
        self._sound_rhythm = Rhythm(MEL_BANDS // 2, BANDS_FLOOR)
        self.reset()

    def reset(self) -> None:
        """Forget the audio so far, as at a gap: the next sample pushed is sample 0."""
        self._pending = np.zeros(CONTEXT_SAMPLES - FRAME_SAMPLES, np.float32)
        self._last_mel: NDArray[np.float32] | None = None
        self._last_energy: float | None = None
        self._shapes: deque[NDArray[np.float32]] = deque(maxlen=CHANGE_FRAMES)  # of the last frames
        self._voicing_rhythm.reset()
        self._sound_rhythm.reset()

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames that these samples complete, shape (n, 73); the caller owns them.

        Args:
            samples: shape (n,), any length, in [-1, 1]; the next ones of the stream.
        """
        pending = np.concatenate((self._pending, samples))
        count = max(0, (pending.size - CONTEXT_SAMPLES) // HOP_SAMPLES + 1)
        frames = np.empty((count, PROSODY_DIM), np.float32)
        for k in range(count):
            self._analyse(pending[k * HOP_SAMPLES : k * HOP_SAMPLES + CONTEXT_SAMPLES], frames[k])
        self._pending = pending[count * HOP_SAMPLES :].copy()
        return frames

    def _analyse(self, context: NDArray[np.float32], frame: NDArray[np.float32]) -> None:
        samples = context[-FRAME_SAMPLES:]
        power = np.square(np.abs(np.fft.rfft(samples * self._hann, FFT_SIZE))).astype(np.float32)
        # einsum, not @: BLAS would start threads for it.
        mel = np.log(np.einsum("mf,f->m", self._mel, power) + np.float32(POWER_FLOOR))
        rise = 0.0 if self._last_mel is None else float(np.maximum(mel - self._last_mel, 0).mean())
        self._last_mel = mel
        mean_square = max(float(np.square(samples).mean()), 10 ** (ENERGY_FLOOR_DB / 10))
        f0_hz, voicing = self._pitch(context.astype(np.float64))
        frame[:MEL_BANDS] = (mel - MEL_MEAN) / MEL_DEVIATION
        octaves = math.log2(f0_hz / REFERENCE_HZ) if voicing >= VOICED else 0.0
        energy = (10.0 * math.log10(mean_square) - ENERGY_MEAN_DB) / ENERGY_DEVIATION_DB
        frame[F0 : FLUX + 1] = octaves, voicing, energy, (rise - FLUX_MEAN) / FLUX_DEVIATION
        bands = frame[:MEL_BANDS]
        frame[RHYTHM] = self._voicing_rhythm.push(np.array([voicing]))
        frame[SOUND_RHYTHM] = self._sound_rhythm.push(bands[::2])
        frame[CHANGE] = SCALE * self._change(bands - bands.mean())
        frame[ENERGY_CHANGE] = SCALE * abs(
            energy - (energy if self._last_energy is None else self._last_energy)
        )
        frame[F0_SQUARED] = SCALE * octaves**2
        self._last_energy = energy

    def _change(self, shape: NDArray[np.float32]) -> float:
        """The mean difference of a spectrum's shape from that 100 ms before; 0 at the start."""
        earlier = self._shapes[0] if len(self._shapes) == CHANGE_FRAMES else shape
        self._shapes.append(shape)
        return float(np.abs(shape - earlier).mean())

    def _pitch(self, context: NDArray[np.float64]) -> tuple[float, float]:
        """F0 in Hz and the correlation at its period, in [0, 1].

        The normalised cross-correlation of RAPT (Talkin 1995), with a cost for longer periods.
        """
        context = context - context.mean()
        recent = context[-F0_WINDOW:]
        # One value per lag from LONGEST_LAG + 1 down; one more at either end for the parabola.
        products = np.correlate(context, recent, "valid")[: self._lags.size]
        sums = np.concatenate(([0.0], np.square(context).cumsum()))
        energies = sums[F0_WINDOW:] - sums[:-F0_WINDOW]
        floor = SILENCE_POWER * F0_WINDOW
        correlation = products / np.sqrt((energies[: self._lags.size] + floor) * (energies[-1] + floor))
        inner = correlation[1:-1]
        is_peak = (inner >= correlation[:-2]) & (inner >= correlation[2:])
        if not is_peak.any():
            return REFERENCE_HZ, 0.0
        best = 1 + int(np.where(is_peak, inner - self._cost[1:-1], -np.inf).argmax())
        before, at, after = correlation[best - 1 : best + 2].tolist()
        bend = before - 2 * at + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
        lag = float(self._lags[best]) - shift  # lags descend
        return RATE_HZ / lag, min(1.0, max(0.0, at))


def mel_bank() -> NDArray[np.float32]:
    """The weights (64, 513) of the bins of a spectrum in each mel band, at most 1.

    Triangles from the middle of the band below to that of the band above, in Hz; the middles are equally far
    apart on O'Shaughnessy's scale, mel = 2595 log10(1 + Hz / 700), from 60 to 7600 Hz.

    Source: the HTK Book, 5.4 Filterbank Analysis; `torchaudio.functional.melscale_fbanks` gives the same.
    """
    # Rounded to single precision where torchaudio does, as the packaged checkpoint was trained on: in double
    # precision some features of speech would be 2e-5 off.
    low, high = (np.float32(2595.0 * math.log10(1.0 + edge / 700.0)) for edge in MEL_RANGE_HZ)
    k, last = np.arange(MEL_BANDS + 2), MEL_BANDS + 1
    step = float((high - low) / np.float32(last))
    mel = np.where(k <= last // 2, low + step * k, high - step * (last - k)).astype(np.float32)
    ratio = np.power(10.0, mel / np.float32(2595.0), dtype=np.float64).astype(np.float32)
    corners = np.float32(700.0) * (ratio - np.float32(1.0))
    bins = np.fft.rfftfreq(FFT_SIZE, 1.0 / RATE_HZ).astype(np.float32)
    below, middle, above = (corners[k : k + MEL_BANDS, None] for k in range(3))
    weights: NDArray[np.float32] = np.minimum(
        (bins - below) / (middle - below), (above - bins) / (above - middle)
    )
    np.maximum(weights, 0.0, out=weights)
    return weights


class RunningMoments:
    """Mean and variance of each channel over the last `spans` arrays that were added.

    Each span is kept as count, mean and sum of squared deviations, in double precision, and all are put
    together whenever they are asked for (Chan, Golub & LeVeque 1983): no error builds up, and a loud span
    leaves nothing behind once it has left.
    """

    def __init__(self, spans: int) -> None:
        self._spans: deque[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = deque(maxlen=spans)

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in one span, shape (channels, n); an empty one changes nothing."""
        if values.shape[1] == 0:
            return
        exact = values.astype(np.float64)
        mean = exact.mean(axis=1)
        self._spans.append((values.shape[1], mean, np.square(exact - mean[:, None]).sum(axis=1)))

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance (over n, not n - 1), each (channels,); something must have been added."""
        counts = np.array([count for count, _, _ in self._spans], np.float64)[:, None]
        means = np.stack([mean for _, mean, _ in self._spans])
        within = np.stack([squares for _, _, squares in self._spans])
        total = counts.sum()
        mean = (counts * means).sum(axis=0) / total
        between = counts * np.square(means - mean)
        return mean, (within + between).sum(axis=0) / total
