"""What the demo's person does: a smile grows, words come, the face is lost, speech stops, everything returns.

All times are seconds from the start of the show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_models.inputs import COMPACT_SHAPES

__all__ = ["LENGTH_S", "UTTERANCES", "Utterance", "face_at", "spoken"]

LENGTH_S: Final = 38.0
WORD_S: Final = 0.32  # an unhurried speaker: about three words a second


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence, spoken word by word from `start_s` on; committed `settle_s` after its last word."""

    start_s: float
    text: str

    @property
    def words(self) -> list[str]:
        """The words, in order."""
        return self.text.split()

    @property
    def end_s(self) -> float:
        """When the last word ends."""
        return self.start_s + WORD_S * len(self.words)


UTTERANCES: Final = (
    Utterance(3.5, "oh stop it that is hilarious i can not stop laughing"),
    Utterance(10.0, "you did an amazing job i really admire how you handled that"),
    Utterance(24.0, "i am so excited i can not wait for this"),
    Utterance(30.5, "thank you so much i am so happy this makes my day"),
)
FACE_LOST_S: Final = (9.5, 14.0)
# (time, intensity) of the smile, joined by straight lines
SMILE: Final = (
    (0.0, 0.02),
    (1.5, 0.05),
    (5.0, 0.8),
    (9.5, 0.6),
    (14.0, 0.3),
    (17.0, 0.1),
    (22.0, 0.05),
    (26.0, 0.85),
)
# (time, intensity) of a mouth that laughs, and of brows that go up
LAUGH: Final = ((4.5, 0.0), (5.5, 1.0), (8.0, 1.0), (9.0, 0.2), (14.0, 0.0))
BROWS: Final = ((23.5, 0.0), (24.5, 1.0), (28.0, 1.0), (30.0, 0.0))
BLINK_EVERY_S: Final = 3.7
BLINK_S: Final = 0.15

# Positions in MediaPipe's list of 52 blendshapes.
BROWS_UP: Final = (3, 4, 5)
EYE_BLINK: Final = (9, 10)
EYE_SQUINT: Final = (19, 20)
EYE_WIDE: Final = (21, 22)
JAW_OPEN: Final = 25
LOWER_LIP_DOWN: Final = (34, 35)
MOUTH_SMILE: Final = (44, 45)
UPPER_LIP_UP: Final = (48, 49)
PITCH, YAW, ROLL = 52, 53, 54


def face_at(t_s: float) -> NDArray[np.float32] | None:
    """Blendshapes and head pose at an instant, shape (58,); None while the face is out of the picture."""
    if FACE_LOST_S[0] <= t_s < FACE_LOST_S[1]:
        return None
    features = np.zeros(COMPACT_SHAPES.vision_dim, np.float32)
    smile, laugh, brows = (
        float(np.interp(t_s, [at for at, _ in course], [strength for _, strength in course]))
        for course in (SMILE, LAUGH, BROWS)
    )
    features[list(MOUTH_SMILE)] = smile
    features[list(UPPER_LIP_UP)] = 0.65 * smile
    features[list(LOWER_LIP_DOWN)] = 0.3 * smile
    features[list(EYE_SQUINT)] = 0.2 + 0.25 * smile - 0.2 * brows
    features[list(EYE_WIDE)] = 0.4 * brows
    features[list(BROWS_UP)] = 0.08 + 0.65 * brows
    features[list(EYE_BLINK)] = 0.7 if t_s % BLINK_EVERY_S < BLINK_S else 0.1
    moving = 0.08 + 0.08 * math.sin(2 * math.pi * 4 * t_s) if spoken(t_s) else 0.02
    features[JAW_OPEN] = moving + 0.3 * laugh + 0.1 * brows
    features[PITCH] = 0.05 * math.sin(0.7 * t_s) - 0.15 * laugh
    features[YAW] = 0.12 * math.sin(0.4 * t_s)
    features[ROLL] = 0.03 * math.sin(0.9 * t_s)
    return features


def spoken(t_s: float) -> bool:
    """Whether somebody is speaking at that instant."""
    return any(u.start_s <= t_s < u.end_s for u in UTTERANCES)
