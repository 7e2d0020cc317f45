"""An invented speaker and what he does over some seconds, as control tracks: syllables, laughter, a 'wow'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from recipes.compact.synthesiser import TRACK_HZ, Tracks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recipes.compact.manners import Manner

__all__ = ["Score", "Speaker", "Take", "laugh", "smooth", "speak", "wow"]

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


# First three formants of a man's vowels, Hz, after Peterson & Barney 1952; in the order i I E ae A O U u V 3.
VOWELS: Final = np.array(
    [
        *((270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440)),
        *((570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690)),
    ],
    dtype=np.float64,
)
E, AE, A, U, V, UM = 2, 3, 4, 7, 8, 9
NASAL: Final = np.array([250.0, 1100.0, 2200.0])
CONSONANTS: Final = ("none", "stop", "fricative", "nasal", "glide", "h")
CHANCES: Final = (0.1, 0.3, 0.25, 0.17, 0.13, 0.05)
HESITATES: Final = 0.1  # chance of an "um" at a phrase's end: a long vowel is not yet an "ooh"
ACCENT_STEPS: Final = 16  # deviation of an accent's bell, 80 ms


def speak(seconds: float, who: Speaker, take: Take, rng: np.random.Generator) -> Tracks:
    """Phrases of invented syllables that last about so long."""
    score = Score()
    accents: list[tuple[float, float]] = []
    phrases: list[tuple[int, int, float]] = []
    goal = round(seconds * TRACK_HZ)
    vowel = VOWELS[rng.integers(len(VOWELS))]
    while score.length < goal:
        start, syllables = score.length, int(rng.integers(3, 12))
        for index in range(syllables):
            at = score.length
            longer = 1.5 if index == syllables - 1 else 1.0
            vowel = _syllable(score, longer / take.rate_hz, vowel, rng)
            height = rng.normal(0.0, 1.0) + (1.2 if index % 3 == 0 else -0.4)
            accents.append(((at + score.length) / 2, height))
        phrases.append((start, score.length, float(rng.choice([-1.0, 1.0], p=[0.8, 0.2]))))
        if rng.random() < HESITATES:
            score.add(rng.uniform(0.15, 0.6), VOWELS[UM], voice=0.7)
        share = take.pause / max(0.05, 1 - take.pause)
        silence = (score.length - start) / TRACK_HZ * share * rng.lognormal(0.0, 0.4)
        if silence > 0.05:
            score.add(silence, vowel, breath=rng.choice([0.0, 0.02]))
    return score.tracks(_melody(score.length, accents, phrases, take.spread_st), who, take, rng)


def laugh(seconds: float, who: Speaker, take: Take, rng: np.random.Generator) -> Tracks:
    """Bouts of laughter: notes of some 85 ms, four to five a second, softer and lower towards the end."""
    score = Score()
    levels: list[float] = []
    goal = round(seconds * TRACK_HZ)
    vowel = VOWELS[rng.choice([A, V, E, AE])]
    voiced = rng.random() < 0.75
    while score.length < goal:
        notes = int(rng.integers(3, 10))
        for note in range(notes):
            softer = 1 - 0.6 * note / notes
            sounding = float(np.clip(rng.normal(0.085, 0.025), 0.04, 0.15))
            between = max(0.04, 1 / take.rate_hz - sounding)
            if voiced:
                steps = score.add(sounding, vowel, voice=1.1 * softer, breath=0.3 * softer)
            else:
                steps = score.add(sounding, vowel, breath=softer, hiss=0.15 * softer, hiss_hz=2000.0)
            steps += score.add(between, vowel, breath=rng.uniform(0.1, 0.4) * softer)
            pitch = rng.normal(0.0, 0.5) * take.spread_st + 4.0 * (0.5 - note / notes)
            levels += [pitch] * steps
        levels += [0.0] * score.add(rng.uniform(0.15, 0.5), vowel, breath=rng.choice([0.02, 0.35]))  # inhaled
    return score.tracks(smooth(np.array(levels), 7), who, take, rng)


def wow(seconds: float, who: Speaker, take: Take, rng: np.random.Generator) -> Tracks:
    """A long vowel or two, 'wow' or 'ooh', whose pitch rises a little and then falls far."""
    score = Score()
    levels: list[NDArray[np.float64]] = []
    goal = round(seconds * TRACK_HZ)
    while score.length < goal:
        vowels = (U, A, U) if rng.random() < 0.5 else (U, U, U)
        steps = 0
        for vowel, part in zip(vowels, (0.25, 0.5, 0.25), strict=True):
            steps += score.add(part / take.rate_hz, VOWELS[vowel], voice=rng.uniform(0.7, 1.1), breath=0.05)
        x = np.linspace(0, 1, steps)
        levels.append(take.spread_st * (2.2 * np.sin(np.pi * np.minimum(1.0, 1.6 * x)) - 2.0 * x))
        pause = score.add(rng.uniform(0.2, 0.9), VOWELS[U])
        levels.append(np.full(pause, -take.spread_st))
    return score.tracks(smooth(np.concatenate(levels), 7), who, take, rng)


def _syllable(
    score: Score, seconds: float, before: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """One syllable, onset, vowel and perhaps coda; gives its vowel's formants."""
    vowel: NDArray[np.float64] = VOWELS[rng.integers(len(VOWELS))] * rng.normal(1.0, 0.05, 3)
    seconds *= float(np.clip(rng.lognormal(0.0, 0.25), 0.5, 2.0))
    onset = float(np.clip(0.35 * seconds, 0.035, 0.11))
    coda = 0.8 * onset if rng.random() < 0.35 else 0.0
    _consonant(score, onset, (before + vowel) / 2, rng)
    score.add(max(0.05, seconds - onset - coda), vowel, voice=float(rng.lognormal(0.0, 0.25)))
    if coda:
        _consonant(score, coda, vowel, rng)
    return vowel


def _consonant(score: Score, seconds: float, formants: NDArray[np.float64], rng: np.random.Generator) -> None:
    kind = rng.choice(CONSONANTS, p=CHANCES)
    voiced = rng.random() < 0.5
    hiss_hz = float(rng.uniform(1500.0, 7000.0))
    if kind == "stop":
        score.add(0.7 * seconds, formants, voice=0.06 * voiced)
        burst = rng.uniform(0.1, 0.4)
        score.add(0.3 * seconds, formants, voice=0.15 * voiced, hiss=burst, hiss_hz=hiss_hz)
    elif kind == "fricative":
        score.add(seconds, formants, voice=0.15 * voiced, hiss=rng.uniform(0.08, 0.5), hiss_hz=hiss_hz)
    elif kind == "nasal":
        score.add(seconds, NASAL, voice=0.35)
    elif kind == "glide":
        score.add(seconds, formants * (0.7, 1.1, 1.0), voice=0.55)
    elif kind == "h":
        score.add(seconds, formants, breath=0.35)


def _melody(
    steps: int,
    accents: list[tuple[float, float]],
    phrases: list[tuple[int, int, float]],
    spread_st: float,
) -> NDArray[np.float64]:
    """F0 in semitones around 0 with the given deviation: declination, accents, and how phrases end."""
    t = np.arange(steps, dtype=np.float64)
    melody = np.zeros(steps)
    for centre, height in accents:
        near = slice(max(0, int(centre) - 4 * ACCENT_STEPS), int(centre) + 4 * ACCENT_STEPS)
        melody[near] += height * np.exp(-0.5 * ((t[near] - centre) / ACCENT_STEPS) ** 2)
    for start, stop, end in phrases:
        x = np.linspace(0, 1, stop - start)
        melody[start:stop] += 1.2 * (0.5 - x) + 1.5 * end * np.clip((x - 0.8) / 0.2, 0, 1)
    melody -= melody.mean()
    return melody * (spread_st / max(float(melody.std()), 1e-6))
