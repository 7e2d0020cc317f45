"""Windows of voices for training: invented speakers, synthesised, recorded, and heard by the real encoder.

A take of some seconds has one speaker, who talks plainly or shows one manner, alone or with plain speech
next to it. What a window shows is what its manners stand for (`manners`), once they have lasted for most of a
second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import EMOTIONS
from emi_models.encoders.prosody import PROSODY_DIM, ProsodyEncoder
from recipes.compact.manners import LAUGH, PLAIN, VOICES, WOW
from recipes.compact.synthesiser import RATE_HZ, record, synthesise
from recipes.compact.utterances import Speaker, Take, laugh, speak, wow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from recipes.compact.manners import Manner

__all__ = ["TAKE_S", "VoiceTakes", "make_voices", "voice_take"]

TAKE_S: Final = 4.0
FRAMES_A_S: Final = 50
SOUNDS_FOR_S: Final = 0.8  # how long a manner must have sounded before a window shows all of it
GESTURES: Final = ((LAUGH, laugh, 0.75), (WOW, wow, 0.25))
KINDS: Final = ("plain", "manner", "gesture", "gesture in speech")
CHANCES: Final = (0.6, 0.2, 0.08, 0.12)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceTakes:
    """Takes (N, T, 73) in half precision, and what sounds in each frame, times its strength: (N, T, 6)."""

    values: NDArray[np.float16]
    sounds: NDArray[np.float32]

    def shows(self, take: int, start: int, stop: int) -> NDArray[np.float32]:
        """What a window of these frames shows of the six, (6,)."""
        return shown(self.sounds[take, start:stop])


def shown(sounds: NDArray[np.float32]) -> NDArray[np.float32]:
    """What frames (T, 6) show together: the mean of those that sound, less where few do."""
    on = sounds.any(axis=1)
    seconds = float(on.sum()) / FRAMES_A_S
    if not seconds:
        return np.zeros(len(EMOTIONS), np.float32)
    mean: NDArray[np.float32] = sounds[on].mean(axis=0) * np.float32(min(1.0, seconds / SOUNDS_FOR_S))
    return mean


def make_voices(takes: int, seed: int, advance: Callable[[int], None]) -> VoiceTakes:
    """Takes of `TAKE_S` seconds; the same seed gives the same. `advance` is told how many more are done."""
    rng = np.random.default_rng(seed)
    frames = round(TAKE_S * FRAMES_A_S)
    values = np.zeros((takes, frames, PROSODY_DIM), np.float16)
    sounds = np.zeros((takes, frames, len(EMOTIONS)), np.float32)
    encoder = ProsodyEncoder()
    for take in range(takes):
        values[take], sounds[take] = voice_take(encoder, rng)
        advance(1)
    return VoiceTakes(values, sounds)


def voice_take(
    encoder: ProsodyEncoder, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One take: the encoder's frames (T, 73), and what sounds in each, (T, 6)."""
    who = Speaker.draw(rng)
    parts = _parts(str(rng.choice(KINDS, p=CHANCES)), who, rng)
    frames = round(TAKE_S * FRAMES_A_S)
    heard = record(np.concatenate([sound for sound, _ in parts]), rng)
    encoder.reset()
    values = encoder.push(np.pad(heard, (0, RATE_HZ // FRAMES_A_S * 2)))
    sounds = np.concatenate([np.tile(shows, (len(s) * FRAMES_A_S // RATE_HZ, 1)) for s, shows in parts])
    usable = min(len(values), len(sounds))
    start = int(rng.integers(max(1, usable - frames)))
    values, sounds = values[start : start + frames], sounds[start : start + frames]
    return values, sounds.astype(np.float32)


def _parts(
    kind: str, who: Speaker, rng: np.random.Generator
) -> Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Stretches of sound, one after another, and what each stands for."""
    plain = _choose(PLAIN, rng)
    usual = Take.draw(plain, rng)
    silence = np.zeros(len(EMOTIONS), np.float32)

    def talk(
        seconds: float, take: Take, shows: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return synthesise(speak(seconds, who, take, rng), who.jitter, who.shimmer, rng), shows

    if kind == "plain":
        quiet = np.zeros(int(rng.choice([0.0, rng.uniform(0.2, 3.0)]) * RATE_HZ), np.float32)
        return [(quiet, silence), talk(TAKE_S + 0.5, usual, silence)]
    if kind == "manner":
        manner = _choose(VOICES, rng)
        strength = float(rng.choice([1.0, rng.uniform(0.6, 1.0)]))
        take = usual.towards(Take.draw(manner, rng), strength)
        # How far the manner is on shows only past half way: the ways to talk plainly reach that far.
        shows = _shows(manner) * np.float32(max(0.0, 2 * strength - 1))
        return [talk(TAKE_S + 0.5, take, shows)]
    gesture, perform, _ = GESTURES[int(rng.choice(len(GESTURES), p=[chance for *_, chance in GESTURES]))]
    take = Take.draw(gesture, rng)

    def sounding(seconds: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        tracks = perform(seconds, who, take, rng)
        return synthesise(tracks, who.jitter, who.shimmer, rng), _shows(gesture)

    if kind == "gesture":
        return [sounding(TAKE_S + 0.5)]
    before = talk(rng.uniform(0.8, 3.0), usual, silence)
    after = talk(TAKE_S, usual, silence)
    return [before, sounding(rng.uniform(0.5, 3.0)), after]


def _choose(manners: Sequence[Manner], rng: np.random.Generator) -> Manner:
    weights = np.array([manner.weight for manner in manners])
    return manners[int(rng.choice(len(manners), p=weights / weights.sum()))]


def _shows(manner: Manner) -> NDArray[np.float32]:
    return np.array([manner.shows.get(emotion, 0.0) for emotion in EMOTIONS], np.float32)
