"""The sound of the demo's voice: nobody's, made by the synthesiser that the packaged checkpoint learned from.

Only `emi_live.demo.record` needs it; the show plays what was recorded.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.demo.script import LENGTH_S, UTTERANCES
from emi_models.training.compact.manners import LAUGH, PLAIN, VOICES
from emi_models.training.compact.speakers import Speaker, Take
from emi_models.training.compact.synthesiser import RATE_HZ, Tracks, synthesise
from emi_models.training.compact.utterances import laugh, speak

__all__ = ["sound"]

WHO: Final = Speaker(f0_hz=190.0, tract=1.13, breath=0.08, jitter=0.008, shimmer=0.05)
NOISE: Final = 1e-3  # of a quiet room: -60 dBFS
MANNERS: Final = (PLAIN[0], PLAIN[0], VOICES[0], VOICES[1])  # of the utterances, in their order
LAUGHS_S: Final = (6.0, 9.5)  # over the end of the first utterance, and beyond


def sound() -> NDArray[np.float32]:
    """The whole show, 16 kHz mono."""
    rng = np.random.default_rng(7)
    show = rng.normal(0.0, NOISE, round(LENGTH_S * RATE_HZ))
    for utterance, manner in zip(UTTERANCES, MANNERS, strict=True):
        seconds = utterance.end_s - utterance.start_s
        _put(show, utterance.start_s, seconds, speak(seconds, WHO, Take.middle(manner), rng), rng)
    since_s, until_s = LAUGHS_S
    _put(show, since_s, until_s - since_s, laugh(until_s - since_s, WHO, Take.middle(LAUGH), rng), rng)
    return np.clip(show, -1.0, 1.0).astype(np.float32)


def _put(
    show: NDArray[np.float64], at_s: float, seconds: float, tracks: Tracks, rng: np.random.Generator
) -> None:
    """Sound the tracks in the show from that moment, in place of what was there, and no longer than that."""
    voice = synthesise(tracks, WHO.jitter, WHO.shimmer, rng)[: round(seconds * RATE_HZ)]
    start = round(at_s * RATE_HZ)
    show[start : start + len(voice)] = voice + rng.normal(0.0, NOISE, len(voice))
