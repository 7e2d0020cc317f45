"""Random windows that an engine is asked for proof, and how far its answers may be off. No PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emi_models import MODALITIES
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.inputs import FusionShapes

__all__ = ["probe_arrays", "worst_difference"]


def probe_arrays(shapes: FusionShapes, batch: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Random windows with gaps in their masks and modalities missing, by the names of `FusionInputs`.

    The same for the same seed with every release of numpy: `RandomState` is frozen (NEP 19), and exports keep
    a network's answers to them.
    """
    chance = np.random.RandomState(seed)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in MODALITIES:
        size = [batch, getattr(shapes, f"{name}_dim")]
        if name != "text":
            size.insert(1, getattr(shapes, f"{name}_frames"))
            arrays[f"{name}_mask"] = chance.random_sample(size[:2]) < chance.random_sample((batch, 1))
        arrays[name] = chance.standard_normal(size).astype(np.float32)
        arrays[f"{name}_present"] = chance.random_sample(batch) < 0.75
    return {name: arrays[name] for name in FusionInputs.names()}


def worst_difference(intensities: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of an intensity from what is expected, in units of the largest or of 1."""
    return float(np.abs(intensities - expected).max() / max(1.0, np.abs(expected).max()))
