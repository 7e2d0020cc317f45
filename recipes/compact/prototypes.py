"""Faces as the literature describes them: which actions stand for which of the six emotions, and for none.

No public corpus has these six emotions rated on faces, so the face branch learns from this table. Intensities
in `shows` are ours: they say how strongly a full display speaks for an emotion, not what anybody rated. What
was read of a source, and what is common knowledge of the field, stands in the model card
(docs/models/compact.md).

Facial actions as MediaPipe shows them: from FACS action units to 52 blendshapes and six numbers of pose.

Action units are those of the Facial Action Coding System (Ekman & Friesen 1978; Ekman, Friesen & Hager 2002).
Which blendshapes an action moves follows from their names and anatomy; how far MediaPipe moves them at full
strength is our estimate. MediaPipe leaves some blendshapes near 0 whatever the face does (`cheekSquint*`,
`noseSneer*`, `cheekPuff`), so the cheek raiser AU6 shows in `eyeSquint*`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.encoders.face import FACE_DIM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["ACTIONS", "FACES", "FEATURES", "FacePrototype", "columns", "displacement", "mirrored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePrototype:
    """A display: actions with their strength, more that come with a probability, and what it stands for."""

    name: str
    always: Mapping[str, float]
    sometimes: Mapping[str, float] = field(default_factory=dict)
    shows: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0  # how often it is drawn, compared with the others
    source: str


FACES: Final = (
    FacePrototype(
        name="enjoyment smile",
        always={"AU12": 0.95, "AU6": 0.9},
        sometimes={"AU12+25": 0.8, "AU26": 0.1, "AU7": 0.3, "AU1": 0.1},
        shows={"joy": 0.65, "amusement": 0.3},
        weight=3.0,
        source="FACS prototypes of joy, 6+12(+25) (Ekman & Friesen 1978); Ekman, Davidson & Friesen 1990; "
        "joy has more and longer 6+12 than interest or pleasure: Mortillaro, Mehu & Scherer 2011",
    ),
    FacePrototype(
        name="polite smile",
        always={"AU12": 0.6},
        sometimes={"AU12+25": 0.3, "AU14": 0.2},
        shows={"joy": 0.3, "amusement": 0.1},
        weight=1.5,
        source="Ambadar, Cohn & Reed 2009: smiles seen as polite are smaller, less often open or with AU6",
    ),
    FacePrototype(
        name="laughter",
        always={"AU12": 0.95, "AU6": 1.0, "AU12+25": 1.0, "AU26": 1.2},
        sometimes={"AU7": 0.4, "AU53": 0.5, "AU27": 0.3, "AU43": 0.3},
        shows={"amusement": 0.7, "joy": 0.5},
        weight=2.0,
        source="Ruch & Ekman 2001; Ambadar, Cohn & Reed 2009: smiles seen as amused are larger and open; "
        "laughter is commonest in amusement: Hofmann, Platt & Ruch 2017",
    ),
    FacePrototype(
        name="excited smile",
        always={"AU1": 0.7, "AU2": 0.8, "AU5": 0.9, "AU12": 0.8, "AU12+25": 0.8, "AU26": 0.5},
        sometimes={"AU6": 0.4, "AU27": 0.2, "AU53": 0.2},
        shows={"excitement": 0.65, "joy": 0.4},
        weight=2.0,
        source="no prototype of its own was found; the 'happily surprised' face, 1+2+12+25: "
        "Du, Tao & Martinez 2014",
    ),
    FacePrototype(
        name="admiring look",
        always={"AU1": 0.6, "AU2": 0.7, "AU5": 0.6, "AU12": 0.35},
        sometimes={"AU25": 0.4, "AU26": 0.3, "AU53": 0.3, "AU55": 0.2, "AU56": 0.2},
        shows={"admiration": 0.6, "joy": 0.1},
        weight=2.0,
        source="Darwin 1872: eyes opened, eyebrows raised, eyes bright, a smile",
    ),
    FacePrototype(
        name="awe",
        always={"AU1": 0.7, "AU2": 0.4, "AU5": 0.7, "AU25": 0.6, "AU26": 0.7},
        sometimes={"AU57": 0.4, "AU53": 0.3},
        shows={"admiration": 0.4},
        weight=1.5,
        source="Shiota, Campos & Keltner 2003: raised brows, wide eyes, dropped jaw, few smiles",
    ),
    FacePrototype(
        name="surprise",
        always={"AU1": 0.9, "AU2": 1.0, "AU5": 1.0, "AU26": 1.3},
        sometimes={"AU27": 0.4, "AU25": 0.4},
        shows={"excitement": 0.55, "admiration": 0.15},
        source="FACS prototype of surprise, 1+2+5+26 (Ekman & Friesen 1978)",
    ),
    FacePrototype(
        name="concern for another",
        always={"AU1+4": 1.0},
        sometimes={"AU7": 0.4, "AU17": 0.5, "AU24": 0.5, "AU55": 0.3, "AU56": 0.3, "AU57": 0.4, "AU15": 0.2},
        shows={"empathic_pain": 0.6},
        weight=2.5,
        source="viewers of a compassionate film, FACS: 1, 4, 7, 17, 24, head tilt (Kanovsky et al. 2020); "
        "sympathy, brows drawn together or oblique, head forward (Eisenberg et al. 1989)",
    ),
    FacePrototype(
        name="sadness",
        always={"AU1+4": 0.8, "AU15": 0.9},
        sometimes={"AU17": 0.5, "AU54": 0.3, "AU43": 0.2, "AU24": 0.2},
        shows={"empathic_pain": 0.55},
        weight=1.5,
        source="FACS prototype of sadness, 1+4+15 (Ekman & Friesen 1978)",
    ),
    FacePrototype(
        name="weeping",
        always={"AU43": 1.0, "weeping mouth": 0.8, "eyes down": 0.9},
        sometimes={"AU1+4": 0.6, "AU4": 0.3, "AU15": 0.4, "AU20": 0.4, "AU54": 0.4, "AU7": 0.5, "AU26": 0.4},
        shows={"empathic_pain": 0.6},
        weight=2.0,
        source="blendshapes of a weeping person: the mouth is drawn out as in a smile, but the lips do not "
        "part as in laughter, and the eyes are closed or look down",
    ),
    FacePrototype(
        name="smile that looks down",
        always={"AU12": 0.9, "AU43": 0.6, "eyes down": 0.8},
        sometimes={"AU6": 0.6, "AU12+25": 0.5, "AU54": 0.5},
        shows={"joy": 0.5, "amusement": 0.2},
        source="who smiles at a telephone: eyes down alone are not weeping",
    ),
    FacePrototype(
        name="resolve",
        always={"AU4": 0.8, "AU24": 0.9},
        sometimes={"AU23": 0.5, "AU17": 0.5, "AU7": 0.5, "AU54": 0.15},
        shows={"determination": 0.6},
        weight=2.5,
        source="Darwin 1872: a firmly closed mouth; frowning and a set jaw in effort: de Morree & Marcora "
        "2010, Huang et al. 2014",
    ),
    # What follows stands for little or nothing of the six, so that its actions alone are not taken for one.
    FacePrototype(
        name="anger",
        always={"AU4": 1.0, "AU7": 0.7, "AU5": 0.5, "AU23": 0.6},
        sometimes={"AU24": 0.4, "AU10": 0.3, "AU25": 0.3, "AU17": 0.3},
        source="FACS prototypes of anger, 4+5+7+23/24 (Ekman & Friesen 1978)",
    ),
    FacePrototype(
        name="concentration",
        always={"AU4": 0.6},
        sometimes={"AU7": 0.6, "AU18": 0.2, "AU14": 0.2, "AU54": 0.3},
        source="Rozin & Cohen 2003: brows lowered in confusion and concentration",
    ),
    FacePrototype(
        name="disgust",
        always={"AU9": 1.0, "AU10": 0.8},
        sometimes={"AU17": 0.4, "AU4": 0.5, "AU25": 0.3},
        source="FACS prototypes of disgust, 9 or 10 (Ekman & Friesen 1978)",
    ),
    FacePrototype(
        name="fear",
        always={"AU1": 0.8, "AU2": 0.5, "AU4": 0.5, "AU5": 1.0, "AU20": 0.9, "AU25": 0.6},
        sometimes={"AU26": 0.4},
        source="FACS prototype of fear, 1+2+4+5+20+25 (Ekman & Friesen 1978)",
    ),
    FacePrototype(
        name="contempt",
        always={"AU14": 0.9},
        sometimes={"AU10": 0.2},
        weight=0.5,
        source="EMFACS: AU14, of one side (Ekman & Friesen)",
    ),
    FacePrototype(
        name="brow flash",
        always={"AU1": 0.7, "AU2": 0.8},
        sometimes={"AU5": 0.2},
        source="a signal of conversation rather than of emotion: Ekman 1979",
    ),
    FacePrototype(
        name="inner brows up", always={"AU1": 0.7}, source="as the brow flash; and the resting brows of many"
    ),
    FacePrototype(
        name="pressed lips",
        always={"AU24": 0.9},
        sometimes={"AU17": 0.5, "AU14": 0.3, "AU23": 0.3},
        source="alone, more often a mouth at rest or a swallow than resolve",
    ),
    FacePrototype(
        name="pucker", always={"AU18": 1.0}, weight=0.5, source="a kiss, a whistle, a mouth in thought"
    ),
    FacePrototype(
        name="yawn",
        always={"AU27": 1.2, "AU43": 0.9},
        sometimes={"AU53": 0.4},
        weight=0.5,
        source="an open mouth without a smile",
    ),
    FacePrototype(
        name="gasp",
        always={"AU1": 0.5, "AU25": 0.8, "AU26": 1.3},
        sometimes={"AU5": 0.5, "AU53": 0.3, "AU2": 0.3},
        shows={"excitement": 0.2},
        weight=0.5,
        source="breath drawn in: less than surprise, without its eyes",
    ),
    FacePrototype(
        name="shout",
        always={"AU27": 1.0, "AU25": 0.8},
        sometimes={"AU4": 0.6, "AU7": 0.5, "AU10": 0.4, "AU9": 0.3},
        weight=0.7,
        source="a mouth wide open with lowered brows: loud, and none of the six",
    ),
    FacePrototype(
        name="singing",
        always={"AU26": 1.0, "AU18": 0.3},
        sometimes={"AU1": 0.5, "AU27": 0.3, "AU53": 0.3, "AU43": 0.4},
        weight=0.7,
        source="a long open vowel, often with raised inner brows: none of the six",
    ),
    FacePrototype(
        name="eyes down",
        always={"AU43": 0.8, "eyes down": 0.8},
        sometimes={"AU54": 0.5},
        source="reading, or tired: no display",
    ),
    FacePrototype(
        name="open mouth",
        always={"AU26": 1.2, "AU25": 0.8},
        sometimes={"AU27": 0.2},
        weight=0.7,
        source="breathing, or about to speak",
    ),
)


# The columns of the face encoder's features, in its order.
FEATURES: Final = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight"),
    *("eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft"),
    *("eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight"),
    *("eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"),
    *("mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
    *("pitch", "yaw", "roll", "x", "y", "z"),
)

# What an action adds at full strength; a name without its side stands for both sides. Pose is in the
# encoder's units: pitch > 0 looks down, z > 0 comes nearer.
ACTIONS: Final[Mapping[str, Mapping[str, float]]] = {
    "AU1": {"browInnerUp": 0.85},  # inner brow raiser
    "AU2": {"browOuterUp": 0.8, "browInnerUp": 0.4},  # outer brow raiser
    "AU4": {"browDown": 0.75, "browOuterUp": -0.1},  # brow lowerer
    "AU1+4": {"browInnerUp": 0.75, "browDown": 0.3, "browOuterUp": -0.05},  # both at once: oblique brows
    "AU5": {"eyeWide": 0.45, "eyeSquint": -0.3, "eyeBlink": -0.15},  # upper lid raiser
    "AU6": {"eyeSquint": 0.35, "cheekSquint": 0.05},  # cheek raiser
    "AU7": {"eyeSquint": 0.45, "eyeBlink": 0.1},  # lid tightener
    "AU9": {"noseSneer": 0.25, "browDown": 0.35, "mouthUpperUp": 0.35, "eyeSquint": 0.2},  # nose wrinkler
    "AU10": {"mouthUpperUp": 0.6},  # upper lip raiser
    "AU12": {  # lip corner puller
        "mouthSmile": 0.95,
        "mouthDimple": 0.08,
        "mouthStretch": 0.06,
        "mouthPress": 0.1,
        "mouthPucker": -0.6,
        "mouthFrown": -0.4,
        "mouthShrugLower": -0.5,
        "mouthRollLower": -0.15,
    },
    "AU12+25": {"mouthUpperUp": 0.65, "mouthLowerDown": 0.3},  # teeth in a smile
    "AU14": {"mouthDimple": 0.5, "mouthPress": 0.3},  # dimpler
    "AU15": {"mouthFrown": 0.55, "mouthShrugLower": 0.15},  # lip corner depressor
    "AU17": {"mouthShrugLower": 0.7, "mouthShrugUpper": 0.4},  # chin raiser
    "AU18": {"mouthPucker": 0.9, "mouthFunnel": 0.1},  # lip pucker
    "AU20": {"mouthStretch": 0.55, "mouthLowerDown": 0.2},  # lip stretcher
    "AU23": {"mouthRollLower": 0.3, "mouthRollUpper": 0.3, "mouthPress": 0.3},  # lip tightener
    "AU24": {"mouthPress": 0.6, "mouthRollLower": 0.2, "mouthRollUpper": 0.1},  # lip presser
    "AU25": {"mouthLowerDown": 0.3, "mouthUpperUp": 0.1, "mouthPress": -0.3, "mouthRollLower": -0.2},
    "AU26": {"jawOpen": 0.3, "mouthPucker": -0.2, "mouthShrugLower": -0.3},  # jaw drop
    "AU27": {"jawOpen": 0.7, "mouthPucker": -0.3, "mouthShrugLower": -0.4},  # mouth stretch
    "AU43": {"eyeBlink": 0.7, "eyeSquint": 0.15, "eyeLookDown": 0.4},  # eyes closed
    "eyes down": {"eyeLookDown": 0.75, "eyeBlink": 0.15},
    "weeping mouth": {
        "mouthSmile": 0.5,
        "mouthStretch": 0.25,
        "mouthFrown": 0.1,
        "jawOpen": 0.12,
        "mouthUpperUp": 0.06,
        "mouthShrugLower": 0.15,
    },
    "AU53": {"pitch": -0.25},  # head up, or thrown back
    "AU54": {"pitch": 0.25},  # head down
    "AU55": {"roll": 0.2},  # head tilted, to one side
    "AU56": {"roll": -0.2},  # and to the other
    "AU57": {"z": 0.12, "pitch": 0.05},  # head forward
}


def columns(name: str) -> list[int]:
    """The feature columns of a name: one, or left and right where it names no side."""
    if name in FEATURES:
        return [FEATURES.index(name)]
    return [FEATURES.index(f"{name}Left"), FEATURES.index(f"{name}Right")]


def displacement(parts: Mapping[str, float]) -> NDArray[np.float32]:
    """What names with amounts add to a face's features, (58,)."""
    moved = np.zeros(FACE_DIM, np.float32)
    for name, amount in parts.items():
        moved[columns(name)] += amount
    return moved


def _mirror() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Where each feature comes from in a mirrored face, and its sign."""
    sides = {"Left": "Right", "Right": "Left"}
    source = []
    for name in FEATURES:
        side = next((side for side in sides if name.endswith(side)), None)
        source.append(FEATURES.index(name.removesuffix(side) + sides[side]) if side else FEATURES.index(name))
    sign = np.where(np.isin(FEATURES, ("yaw", "roll", "x")), -1, 1).astype(np.float32)
    return np.array(source), sign


SOURCE, SIGN = _mirror()


def mirrored(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (..., 58) of the same faces in a mirror."""
    turned: NDArray[np.float32] = values[..., SOURCE] * SIGN
    return turned
