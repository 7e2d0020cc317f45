"""An invented speaker, how a manner is done this time, and segments of sound joined into control tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.training.compact.synthesiser import TRACK_HZ, Tracks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.training.compact.manners import Manner

__all__ = ["Score", "Speaker", "Take", "smooth"]

BANDWIDTHS_HZ: Final = np.array([70.0, 90.0, 130.0, 220.0, 300.0])
HIGHER_HZ: Final = (3500.0, 4500.0)  # a man's fourth and fifth formant


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who speaks: habitual F0, size of the vocal tract, and voice quality."""

    f0_hz: float
    tract: float  # formants are multiplied by it: 1 is a man's, about 1.17 a woman's, 1.3 a child's
    breath: float
    jitter: float
    shimmer: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Speaker:
        """A man, a woman or a child, at random."""
        size = rng.random()
        return cls(
            f0_hz=float(np.clip(95 * 2 ** (1.35 * size + rng.normal(0, 0.16)), 75, 320)),
            tract=0.93 + 0.3 * size + rng.normal(0, 0.04),
            breath=rng.uniform(0.02, 0.3),
            jitter=rng.uniform(0.003, 0.02),
            shimmer=rng.uniform(0.02, 0.12),
        )


@dataclass(frozen=True, slots=True)
class Take:
    """How a manner is done this time: one value from each of its ranges."""

    pitch_st: float
    spread_st: float
    rate_hz: float
    pause: float
    effort: float

    @classmethod
    def draw(cls, manner: Manner, rng: np.random.Generator) -> Take:
        """Values at random."""
        ranges = (manner.pitch_st, manner.spread_st, manner.rate_hz, manner.pause, manner.effort)
        return cls(*(rng.uniform(*span) for span in ranges))

    @classmethod
    def middle(cls, manner: Manner) -> Take:
        """The middle of each range."""
        ranges = (manner.pitch_st, manner.spread_st, manner.rate_hz, manner.pause, manner.effort)
        return cls(*(sum(span) / 2 for span in ranges))

    def towards(self, other: Take, part: float) -> Take:
        """Between this and another: 0 is this one, 1 the other."""
        pairs = zip(self._values(), other._values(), strict=True)
        return Take(*((1 - part) * a + part * b for a, b in pairs))

    def _values(self) -> tuple[float, ...]:
        return (self.pitch_st, self.spread_st, self.rate_hz, self.pause, self.effort)


class Score:
    """Segments one after another; `tracks` joins them smoothly."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._rows: list[tuple[float, float, float, float]] = []  # voice, breath, hiss, hiss_hz
        self._formants: list[NDArray[np.float64]] = []

    def add(
        self,
        seconds: float,
        formants: NDArray[np.float64],
        *,
        voice: float = 0.0,
        breath: float = 0.0,
        hiss: float = 0.0,
        hiss_hz: float = 5000.0,
    ) -> int:
        """Append a segment with these three formants, a man's, and source amplitudes; gives its steps."""
        self._steps.append(max(1, round(seconds * TRACK_HZ)))
        self._rows.append((voice, breath, hiss, hiss_hz))
        self._formants.append(formants)
        return self._steps[-1]

    @property
    def length(self) -> int:
        """The steps of all segments so far."""
        return sum(self._steps)

    def tracks(self, st: NDArray[np.float64], who: Speaker, take: Take, rng: np.random.Generator) -> Tracks:
        """Control tracks, with F0 `st` (T,) semitones above this take's mean."""
        rows = np.repeat(np.array(self._rows), self._steps, axis=0)
        centres = np.repeat(np.array(self._formants), self._steps, axis=0)
        raised = 1 + 0.04 * max(0.0, min(1.0, take.pitch_st / 6))  # a higher larynx shortens the tract
        formants = np.concatenate([centres, np.tile(HIGHER_HZ, (len(centres), 1))], axis=1)
        formants = smooth(formants, 9) * who.tract * raised
        formants[:, 0] *= 1 + 0.12 * max(0.0, take.effort)  # a louder mouth is wider
        f0_hz = who.f0_hz * 2 ** ((take.pitch_st + st) / 12)
        formants[:, 0] = np.maximum(formants[:, 0], 0.9 * f0_hz)
        soft = max(0.0, -take.effort)
        breath = rows[:, 1] + rows[:, 0] * who.breath * (0.15 + 1.2 * soft)
        widths = BANDWIDTHS_HZ * rng.uniform(0.8, 1.6) * (1 + 0.5 * soft)
        return Tracks(
            f0_hz=np.clip(f0_hz, 60.0, 900.0),
            voice=smooth(rows[:, 0], 5),
            breath=smooth(breath, 5),
            hiss=smooth(rows[:, 2], 3),
            hiss_hz=rows[:, 3],
            tilt_db=np.full(len(rows), 3.5 * take.effort + rng.normal(0.0, 1.0)),
            formants_hz=np.minimum(formants, 7800.0),
            bandwidths_hz=np.tile(widths, (len(rows), 1)),
        )


def smooth(track: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """A moving average along time over an odd number of steps, edges repeated."""
    half = steps // 2
    padded = np.pad(track, [(half, half)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    smoothed: NDArray[np.float64] = (sums[steps:] - sums[:-steps]) / steps
    return smoothed
