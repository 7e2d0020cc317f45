"""What speaking and living do to a face that is not emotion: mouth shapes of speech, blinks, gaze, drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.training.compact.actions import displacement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["blinks", "gaze", "speech", "wander"]

# Mouth shapes of English sounds, from how they are articulated; amounts are our estimate of MediaPipe's.
VISEMES: Final[Mapping[str, Mapping[str, float]]] = {
    "a": {"jawOpen": 0.4, "mouthLowerDown": 0.25, "mouthUpperUp": 0.1},
    "e": {
        "jawOpen": 0.18,
        "mouthStretch": 0.2,
        "mouthLowerDown": 0.3,
        "mouthSmile": 0.1,
        "mouthUpperUp": 0.1,
    },
    "i": {
        "jawOpen": 0.06,
        "mouthStretch": 0.25,
        "mouthLowerDown": 0.3,
        "mouthSmile": 0.15,
        "mouthDimple": 0.1,
    },
    "o": {"jawOpen": 0.2, "mouthFunnel": 0.3, "mouthPucker": 0.5},
    "u": {"jawOpen": 0.05, "mouthFunnel": 0.2, "mouthPucker": 0.8},
    "m": {"mouthPress": 0.4, "mouthRollLower": 0.35, "mouthRollUpper": 0.25, "mouthClose": 0.1},
    "f": {"jawOpen": 0.05, "mouthRollLower": 0.45, "mouthUpperUp": 0.2},
    "s": {"jawOpen": 0.05, "mouthLowerDown": 0.3, "mouthUpperUp": 0.1, "mouthStretch": 0.1},
    "sh": {"jawOpen": 0.08, "mouthFunnel": 0.35, "mouthPucker": 0.3, "mouthShrugUpper": 0.1},
    "l": {"jawOpen": 0.15, "mouthLowerDown": 0.15},
    "rest": {},
}
SHAPES: Final = np.stack([displacement(parts) for parts in VISEMES.values()])  # (11, 58)

LOOKS: Final = {
    "right": ("eyeLookInLeft", "eyeLookOutRight"),
    "left": ("eyeLookOutLeft", "eyeLookInRight"),
    "up": ("eyeLookUp",),
    "down": ("eyeLookDown",),
}


def speech(t_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """What a speaking mouth adds at times t_s (T,): (T, 58), a shape every 70–200 ms, with pauses."""
    knots, shapes = [t_s[0] - 0.3], [len(SHAPES) - 1]
    while knots[-1] < t_s[-1]:
        pause = rng.random() < 0.08
        knots.append(knots[-1] + (rng.uniform(0.2, 0.8) if pause else rng.uniform(0.07, 0.2)))
        shapes.append(len(SHAPES) - 1 if pause else int(rng.integers(len(SHAPES))))
    strength = rng.uniform(0.4, 1.3, len(shapes))[:, None] * rng.uniform(0.4, 1.1)
    path = SHAPES[shapes] * strength
    moved = np.stack([np.interp(t_s, knots, path[:, i]) for i in range(path.shape[1])], axis=1)
    return moved.astype(np.float32)


def blinks(t_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """What blinks add: (T, 58), some 6 to 30 a minute, 0.15–0.35 s each."""
    moved = np.zeros((len(t_s), SHAPES.shape[1]), np.float32)
    shape = displacement({"eyeBlink": 0.65, "eyeSquint": 0.2, "eyeLookDown": 0.25, "browDown": 0.03})
    at = t_s[0] + rng.exponential(3.0)
    while at < t_s[-1]:
        width = rng.uniform(0.15, 0.35) / 2
        moved += np.maximum(0.0, 1 - np.abs(t_s - at) / width)[:, None].astype(np.float32) * shape
        at += 0.4 + rng.exponential(rng.uniform(1.5, 8.0))
    return moved


def gaze(t_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """What the eyes' direction adds: (T, 58), fixations of 0.3–3 s; looking down lowers the lids."""
    moved = np.zeros((len(t_s), SHAPES.shape[1]), np.float32)
    centre = rng.normal(0.0, 0.12, 2) - (0.0, rng.choice([0.05, 0.4], p=[0.8, 0.2]))
    at = t_s[0]
    while at <= t_s[-1]:
        until = at + rng.uniform(0.3, 3.0)
        x, y = centre + rng.normal(0.0, 0.15, 2)
        amounts = {"right": x, "left": -x, "up": y, "down": -y}
        parts = {name: float(max(0.0, amounts[way])) for way, names in LOOKS.items() for name in names}
        parts["eyeBlink"] = 0.5 * parts["eyeLookDown"]
        moved[(t_s >= at) & (t_s < until)] = displacement(parts)
        at = until
    return moved


def wander(
    steps: int, dt_s: float, memory_s: float, scale: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Independent slow drifts, (steps, len(scale)): autoregressive noise of that memory and deviation."""
    keep = float(np.exp(-dt_s / memory_s))
    drift = rng.normal(size=(steps, len(scale)))
    drift[1:] *= np.sqrt(1 - keep**2)
    for step in range(1, steps):
        drift[step] += keep * drift[step - 1]
    return drift * scale
