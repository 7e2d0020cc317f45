"""Windows of faces for training: invented people who show prototypes, talk, blink and look about.

A clip of a few seconds has one person, a camera of its own frame rate and distance, and up to two displays
with onset, apex and offset; windows are cut at random instants. What a window shows of the six emotions is
what the displays stand for (`prototypes.FACES`) times how far they are on at that instant.

Speech, blinks, gaze and drift move a face too; `speech`, `blinks`, `gaze` and `wander` make those movements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import EMOTIONS
from emi_models.encoders.face import BLENDSHAPES, FACE_DIM
from recipes.compact.prototypes import ACTIONS, FACES, FEATURES, columns, displacement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from recipes.compact.prototypes import FacePrototype

__all__ = ["FaceWindows", "blinks", "face_clip", "gaze", "make_faces", "speech", "wander"]

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


CLIP_S: Final = 5.0
WINDOWS_A_CLIP: Final = 4
OWN_WAY: Final = 0.12  # how far people differ in the same display: deviation of its amounts' logarithms

# How far MediaPipe's blendshapes are from 0 in faces at rest: upper ends; a face's own are drawn below them,
# mostly far below. Set wide, after a look at the dozen faces of the test media.
REST: Final[Mapping[str, float]] = {
    "browDown": 0.4,
    "browInnerUp": 0.7,
    "browOuterUp": 0.45,
    "eyeBlink": 0.5,
    "eyeLookDown": 0.3,
    "eyeLookIn": 0.15,
    "eyeLookOut": 0.15,
    "eyeLookUp": 0.15,
    "eyeSquint": 0.75,
    "eyeWide": 0.08,
    "jawOpen": 0.1,
    "mouthClose": 0.05,
    "mouthDimple": 0.15,
    "mouthFrown": 0.12,
    "mouthFunnel": 0.08,
    "mouthLeft": 0.1,
    "mouthLowerDown": 0.12,
    "mouthPress": 0.4,
    "mouthPucker": 0.7,
    "mouthRight": 0.1,
    "mouthRollLower": 0.4,
    "mouthRollUpper": 0.2,
    "mouthShrugLower": 0.55,
    "mouthShrugUpper": 0.2,
    "mouthSmile": 0.15,
    "mouthStretch": 0.1,
    "mouthUpperUp": 0.08,
}
SIDES: Final = [columns(name) for name in sorted({f.removesuffix("Left") for f in FEATURES if "Left" in f})]
PAIRS: Final = np.array([pair for pair in SIDES if len(pair) == 2])


@dataclass(frozen=True, slots=True, eq=False)
class FaceWindows:
    """Windows (N, F, 58) packed to the front, their masks (N, F), and what they show, (N, 6)."""

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    shows: NDArray[np.float32]


def make_faces(
    clips: int,
    frames: int,
    span_s: float,
    seed: int,
    advance: Callable[[int], None],
    people: NDArray[np.float32] | None = None,
) -> FaceWindows:
    """Four windows of each of `clips` invented clips.

    Args:
        clips: how many clips; every fifth or so shows nothing but a neutral face.
        frames: the most frames of a window.
        span_s: how long a window is.
        seed: the same gives the same windows.
        advance: told how many more clips are done.
        people: real faces at rest (K, 58), from which every second clip starts; None: all are invented.
    """
    rng = np.random.default_rng(seed)
    count = clips * WINDOWS_A_CLIP
    values = np.zeros((count, frames, FACE_DIM), np.float32)
    mask = np.zeros((count, frames), np.bool_)
    shows = np.zeros((count, len(EMOTIONS)), np.float32)
    for clip in range(clips):
        t_s, features, truth = face_clip(rng, people)
        for row in range(clip * WINDOWS_A_CLIP, (clip + 1) * WINDOWS_A_CLIP):
            end = int(rng.integers(len(t_s)))
            shown = np.flatnonzero((t_s > t_s[end] - span_s) & (t_s <= t_s[end]))[-frames:]
            values[row, : len(shown)] = features[shown]
            mask[row, : len(shown)] = True
            shows[row] = truth[shown].mean(axis=0)
        advance(1)
    return FaceWindows(values, mask, shows)


def face_clip(
    rng: np.random.Generator, people: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """One clip: times (T,), features (T, 58), and what each frame shows of the six, (T, 6)."""
    fps = rng.uniform(5.0, 33.0) if rng.random() < 0.3 else rng.uniform(24.0, 33.0)
    t_s = np.arange(0.0, CLIP_S, 1 / fps)
    t_s = t_s[rng.random(len(t_s)) >= rng.choice([0.0, 0.1])]  # frames in which no face was found
    rest = _rest(rng)
    if people is not None and rng.random() < 0.5:
        rest[:BLENDSHAPES] = people[rng.integers(len(people)), :BLENDSHAPES]
    features = np.tile(rest, (len(t_s), 1))
    features += blinks(t_s, rng) + gaze(t_s, rng)
    if rng.random() < 0.5:
        features += speech(t_s, rng)
    silent = np.ones((len(t_s), len(EMOTIONS)), np.float32)  # what no display shows yet, of each emotion
    for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.6, 0.2]))):
        prototype = _draw(rng)
        on = _course(t_s, rng)[:, None] * np.float32(rng.uniform(0.3, 1.1))
        features += on * _display(prototype, rng)
        silent *= 1 - np.minimum(on, 1.0) * _shows(prototype)
    return t_s, _seen(features, fps, rng), 1 - silent


def _rest(rng: np.random.Generator) -> NDArray[np.float32]:
    """A person's face at rest, as the camera sees it: (58,)."""
    rest = displacement({name: top * rng.beta(0.8, 2.0) for name, top in REST.items()})
    rest[FEATURES.index("pitch")] = rng.normal(0.0, 0.12)
    rest[FEATURES.index("yaw")] = rng.normal(0.0, 0.15)
    rest[FEATURES.index("roll")] = rng.normal(0.0, 0.08)
    rest[FEATURES.index("x")], rest[FEATURES.index("y")] = rng.normal(0.0, 0.2, 2)
    rest[FEATURES.index("z")] = rng.uniform(-0.9, 0.6)
    return rest


def _draw(rng: np.random.Generator) -> FacePrototype:
    weights = np.array([prototype.weight for prototype in FACES])
    return FACES[int(rng.choice(len(FACES), p=weights / weights.sum()))]


def _display(prototype: FacePrototype, rng: np.random.Generator) -> NDArray[np.float32]:
    """What this person's full display of the prototype adds: (58,), each person in an own way."""
    strengths = {name: amount * rng.lognormal(0.0, OWN_WAY) for name, amount in prototype.always.items()}
    for name, chance in prototype.sometimes.items():
        if rng.random() < chance:
            strengths[name] = rng.uniform(0.4, 1.0)
    moved = np.zeros(FACE_DIM, np.float32)
    for name, strength in strengths.items():
        moved += np.float32(strength) * displacement(ACTIONS[name])
    return moved * rng.lognormal(0.0, OWN_WAY, FACE_DIM).astype(np.float32)


def _course(t_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """How far a display is on, (T,) in [0, 1]: onset, apex and offset, which may lie outside of the clip."""
    onset, offset = rng.uniform(0.15, 0.9), rng.uniform(0.15, 1.5)
    begin = rng.uniform(-3.0, CLIP_S - 0.5)
    knots = np.cumsum([begin, onset, rng.uniform(0.2, 4.0), offset])
    linear = np.interp(t_s, knots, [0.0, 1.0, 1.0, 0.0])
    return (0.5 - 0.5 * np.cos(np.pi * linear)).astype(np.float32)


def _shows(prototype: FacePrototype) -> NDArray[np.float32]:
    return np.array([prototype.shows.get(emotion, 0.0) for emotion in EMOTIONS], np.float32)


def _seen(features: NDArray[np.float32], fps: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """The features as a tracker gives them: one side stronger, noise, drift, limits of range."""
    lean = rng.normal(0.0, 0.12, len(PAIRS)) + rng.normal(0.0, 0.05)
    features[:, PAIRS[:, 0]] *= 1 + lean.astype(np.float32)
    features[:, PAIRS[:, 1]] *= 1 - lean.astype(np.float32)
    far = 0.5 - features[0, FEATURES.index("z")]  # a small face in the picture is read with more noise
    noise = rng.uniform(0.005, 0.03) * (1 + 2 * max(0.0, float(far)))
    shapes = np.full(BLENDSHAPES, noise) * rng.lognormal(0.0, 0.5, BLENDSHAPES)
    pose = np.array([0.05, 0.08, 0.04, 0.05, 0.03, 0.03])
    quick = wander(len(features), 1 / fps, 0.05, np.concatenate([shapes, 0.1 * pose]), rng)
    slow = wander(len(features), 1 / fps, 1.5, np.concatenate([0.7 * shapes, pose]), rng)
    shown = features[:, :BLENDSHAPES]
    # Blendshapes that are 0 stay 0: the tracker's noise grows with what it sees.
    sensitivity = np.concatenate([np.sqrt(np.clip(shown, 0.01, 0.25) * 4), np.ones((len(shown), 6))], axis=1)
    features = features + ((quick + slow) * sensitivity).astype(np.float32)
    features[:, :BLENDSHAPES] = np.clip(features[:, :BLENDSHAPES], 0.0, 0.98)
    dead = [*columns("cheekSquint"), *columns("noseSneer"), FEATURES.index("cheekPuff"), 0]
    features[:, dead] *= np.float32(rng.random() < 0.3)
    return features
