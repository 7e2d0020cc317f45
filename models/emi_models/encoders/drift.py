"""How far features of a live stream are from those of a whole pass, and what that does to the intensities.

No label is needed: the whole pass (`Wav2vecEncoder.encode`, or `SlidingWav2vec` in a running engine) is the
reference. Pure functions of arrays, shared by `emi bench drift` and by a check that runs during live use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from emi_models.inputs import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.inputs import FusionInputs

__all__ = [
    "FrameDrift",
    "IntensityDrift",
    "compare_features",
    "compare_intensities",
    "frame_cosines",
    "with_voice",
]


@dataclass(frozen=True, slots=True)
class FrameDrift:
    """Cosine of each frame with the same frame of the reference; 1 is the same direction.

    Attributes:
        frames: how many were compared.
        mean: over frames, in [-1, 1].
        p5: one frame in twenty is below it.
        worst: of all frames.
    """

    frames: int
    mean: float
    p5: float
    worst: float


@dataclass(frozen=True, slots=True)
class IntensityDrift:
    """Absolute differences of the six intensities between two runs, on their scale of [0, 1].

    Attributes:
        windows: how many were compared.
        mean: over windows and intensities.
        worst: of all of them.
        by_emotion: mean over windows, in the order of `EMOTIONS`.
    """

    windows: int
    mean: float
    worst: float
    by_emotion: tuple[float, ...]


def frame_cosines(found: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each frame with its reference, shape (n,), in [-1, 1].

    Two frames of zeros are the same, which is 1; one of zeros and another have nothing in common, which is 0.

    Args:
        found: features, shape (n, dim).
        reference: of the same frames, shape (n, dim).

    Raises:
        InputError: the shapes differ, or are not (n, dim).
    """
    if found.ndim != 2 or found.shape != reference.shape:
        raise InputError(
            f"features of shape {found.shape} cannot be compared with {reference.shape}: "
            "give the same frames of both runs, (n, dim)"
        )
    a, b = found.astype(np.float64), reference.astype(np.float64)
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (np.abs(a).max(axis=1, initial=0) == 0) & (np.abs(b).max(axis=1, initial=0) == 0)
    cosines = np.divide((a * b).sum(axis=1), sizes, out=same.astype(np.float64), where=sizes > 0)
    clipped: NDArray[np.float64] = np.clip(cosines, -1.0, 1.0)
    return clipped


def compare_features(cosines: NDArray[np.float64]) -> FrameDrift:
    """Cosines of frames, as `frame_cosines` gives them, in four figures.

    Raises:
        InputError: there are none.
    """
    if cosines.size == 0:
        raise InputError("no frame to compare; a frame takes 25 ms of sound")
    return FrameDrift(
        cosines.size, float(cosines.mean()), float(np.percentile(cosines, 5)), float(cosines.min())
    )


def compare_intensities(found: NDArray[np.float32], reference: NDArray[np.float32]) -> IntensityDrift:
    """Differences of two runs of estimates at the same instants, each of shape (windows, 6).

    Raises:
        InputError: the shapes differ, or there is no window.
    """
    if found.ndim != 2 or found.shape != reference.shape:
        raise InputError(
            f"intensities of shape {found.shape} cannot be compared with {reference.shape}: "
            "give the same windows of both runs, (windows, 6)"
        )
    if len(found) == 0:
        raise InputError("no window to compare; give at least one of both runs")
    apart = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    by_emotion = tuple(float(mean) for mean in apart.mean(axis=0))
    return IntensityDrift(len(apart), float(apart.mean()), float(apart.max()), by_emotion)


def with_voice(window: FusionInputs, frames: NDArray[np.float32]) -> FusionInputs:
    """The same window (one row) with this voice: its last frames, as many as the window has places.

    What else is in the window is shared, so two windows that differ in the voice alone can be given to a
    network, and its answers to `compare_intensities`.

    Raises:
        InputError: frames are not of the window's width, or there are several rows.
    """
    import torch

    rows, places, width = window.audio.shape
    if rows != 1 or frames.ndim != 2 or frames.shape[1] != width:
        raise InputError(
            f"frames of shape {frames.shape} do not fit a window of shape {tuple(window.audio.shape)}: "
            f"give (n, {width}) for one window"
        )
    kept = frames[max(0, len(frames) - places) :]
    audio = torch.zeros_like(window.audio)
    audio[0, : len(kept)] = torch.from_numpy(np.ascontiguousarray(kept, np.float32))
    mask = torch.zeros_like(window.audio_mask)
    mask[0, : len(kept)] = True
    present = torch.full_like(window.audio_present, len(kept) > 0)
    return replace(window, audio=audio, audio_mask=mask, audio_present=present)
