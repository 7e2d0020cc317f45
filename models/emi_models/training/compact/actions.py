"""Facial actions as MediaPipe shows them: from FACS action units to 52 blendshapes and six numbers of pose.

Action units are those of the Facial Action Coding System (Ekman & Friesen 1978; Ekman, Friesen & Hager 2002).
Which blendshapes an action moves follows from their names and anatomy; how far MediaPipe moves them at full
strength is our estimate. MediaPipe leaves some blendshapes near 0 whatever the face does (`cheekSquint*`,
`noseSneer*`, `cheekPuff`), so the cheek raiser AU6 shows in `eyeSquint*`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.encoders.face import FACE_DIM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["ACTIONS", "FEATURES", "columns", "displacement"]

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
