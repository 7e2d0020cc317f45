"""What an invented speaker does over some seconds, as control tracks: syllables, laughter, a 'wow'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.training.compact.speakers import Score, smooth
from emi_models.training.compact.synthesiser import TRACK_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.training.compact.speakers import Speaker, Take
    from emi_models.training.compact.synthesiser import Tracks

__all__ = ["laugh", "speak", "wow"]

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
