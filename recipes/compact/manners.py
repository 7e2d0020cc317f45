"""Voices as the literature describes them: ranges of what they do, and which of the six emotions they show.

No public corpus has these six emotions rated on voices, so the voice branch learns from this table. Levels of
a recording say nothing here, because nobody knows the gain of a microphone: loudness shows in the tilt of the
spectrum. `shows` is ours, as for faces; where the literature is thin it is small or empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LAUGH", "PLAIN", "VOICES", "WOW", "Manner"]

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How somebody speaks: each a range that a speaker's own value is drawn from, and what it stands for."""

    name: str
    pitch_st: Range  # mean F0, semitones above the speaker's habit
    spread_st: Range  # standard deviation of F0
    rate_hz: Range  # syllables a second, pauses left out
    pause: Range  # part of the time that is silent
    effort: Range  # -1 is soft and breathy, 0 ordinary, 1 nearly a shout
    shows: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    source: str


PLAIN: Final = (
    Manner(
        name="reading and talking",
        pitch_st=(-2.5, 2.5),
        spread_st=(1.2, 4.5),
        rate_hz=(2.8, 6.5),
        pause=(0.03, 0.35),
        effort=(-0.5, 0.5),
        weight=3.0,
        source="ordinary values of read and spontaneous speech",
    ),
    Manner(
        name="public speaking",
        pitch_st=(0.0, 5.0),
        spread_st=(1.5, 4.5),
        rate_hz=(2.2, 4.5),
        pause=(0.15, 0.5),
        effort=(0.2, 0.9),
        weight=1.5,
        source="loud and slow; loud alone is no emotion of the six",
    ),
    Manner(
        name="calm",
        pitch_st=(-3.0, 0.5),
        spread_st=(0.8, 2.2),
        rate_hz=(3.0, 5.0),
        pause=(0.05, 0.3),
        effort=(-0.4, 0.2),
        source="low and even, but neither slow nor soft",
    ),
    Manner(
        name="slow and plain",
        pitch_st=(-3.0, 1.0),
        spread_st=(0.8, 3.0),
        rate_hz=(1.8, 3.2),
        pause=(0.15, 0.5),
        effort=(-0.4, 0.3),
        source="counting, dictating: as slow as sorrow, but not soft",
    ),
    Manner(
        name="anger",
        pitch_st=(1.0, 6.0),
        spread_st=(2.5, 4.5),
        rate_hz=(4.0, 6.5),
        pause=(0.0, 0.2),
        effort=(0.7, 1.2),
        source="Juslin & Laukka 2003: fast, loud, high, variable; none of the six",
    ),
)
VOICES: Final = (
    Manner(
        name="excited",
        pitch_st=(5.0, 11.0),
        spread_st=(5.0, 7.5),
        rate_hz=(5.0, 7.5),
        pause=(0.0, 0.12),
        effort=(0.3, 1.0),
        shows={"excitement": 0.5, "joy": 0.2},
        source="aroused voices are fast, loud, high and variable (Juslin & Laukka 2003; Banse & Scherer "
        "1996, elation)",
    ),
    Manner(
        name="joyful",
        pitch_st=(4.0, 8.0),
        spread_st=(4.5, 6.5),
        rate_hz=(4.0, 6.0),
        pause=(0.03, 0.2),
        effort=(0.1, 0.7),
        shows={"joy": 0.35, "excitement": 0.2},
        source="happy voices are loud, high and variable, with high first formants (Juslin & Laukka 2003; "
        "Kamiloglu, Fischer & Sauter 2020)",
    ),
    Manner(
        name="sorrow for another",
        pitch_st=(-3.0, 0.5),
        spread_st=(0.5, 1.5),
        rate_hz=(1.8, 3.0),
        pause=(0.25, 0.55),
        effort=(-1.2, -0.6),
        shows={"empathic_pain": 0.35},
        source="sad and tender voices are slow, soft, low, of small range (Juslin & Laukka 2003); taken for "
        "sympathy",
    ),
)
LAUGH: Final = Manner(
    name="laughter",
    pitch_st=(5.0, 16.0),
    spread_st=(1.0, 4.0),
    rate_hz=(4.0, 5.3),
    pause=(0.0, 0.1),
    effort=(-0.3, 0.6),
    shows={"amusement": 0.65, "joy": 0.4},
    source="notes of some 75 ms every 210-218 ms, softer towards the end (Provine & Yong 1991); F0 high and "
    "of wide range, voiced or not, without articulation (Bachorowski, Smoski & Owren 2001)",
)
WOW: Final = Manner(
    name="an admiring 'wow' or 'ooh'",
    pitch_st=(1.0, 6.0),
    spread_st=(3.0, 6.0),
    rate_hz=(0.8, 1.7),
    pause=(0.0, 0.2),
    effort=(-0.6, 0.3),
    shows={"admiration": 0.35},
    source="awe is heard in short vocal bursts (Simon-Thomas et al. 2009); of their sound we found only that "
    "admiring voices are lower than other positive ones (Kamiloglu, Fischer & Sauter 2020): kept small",
)
