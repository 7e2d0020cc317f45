"""Proof, at load, that an engine computes its checkpoint's network and not something stale or foreign."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_engine.errors import EngineError
from emi_engine.flat_network import FlatNetwork
from emi_engine.protocol import TOLERANCES
from emi_models import MODALITIES
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_engine.protocol import FusionEngine, Precision
    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FusionShapes

__all__ = ["TOLERANCE", "Probe", "precision_price", "probe_window", "prove_parity", "worst_difference"]

TOLERANCE: Final = TOLERANCES["fp32"]


def probe_window(shapes: FusionShapes, batch: int, seed: int = 0) -> FusionInputs:
    """Random windows with gaps in their masks and modalities missing; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def chance(*size: int) -> torch.Tensor:
        return torch.rand(*size, generator=generator)

    blank = FusionInputs.empty(shapes, batch)
    noise = {name: torch.randn(getattr(blank, name).shape, generator=generator) for name in MODALITIES}
    masks = {
        f"{name}_mask": chance(batch, frames) < chance(batch, 1)
        for name, frames in (("vision", shapes.vision_frames), ("audio", shapes.audio_frames))
    }
    flags = {f"{name}_present": chance(batch) < 0.75 for name in MODALITIES}
    return replace(blank, **noise, **masks, **flags)


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Random windows and what PyTorch says of them, in fp32 on the CPU: (B, 6)."""

    window: FusionInputs
    expected: NDArray[np.float32]

    @classmethod
    def of(cls, checkpoint: LoadedCheckpoint, batch: int = 2) -> Probe:
        """Ask the checkpoint's own network."""
        window = probe_window(checkpoint.network.config.shapes, batch)
        with torch.inference_mode():
            return cls(window, checkpoint.network(window).numpy())

    def worst(self, intensities: NDArray[np.float32]) -> float:
        """How far intensities are from what is expected, as `worst_difference` says."""
        return worst_difference(intensities, self.expected)


def worst_difference(intensities: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of an intensity from what is expected, in units of the largest or of 1."""
    return float(np.abs(intensities - expected).max() / max(1.0, np.abs(expected).max()))


def precision_price(checkpoint: LoadedCheckpoint, precision: Precision, windows: int) -> float:
    """How far a precision moves an intensity at most, by PyTorch on the CPU and on random windows.

    Compiled kernels round in other places, so what an engine gives is near this and not the same.
    """
    probe = Probe.of(checkpoint, batch=windows)
    with torch.inference_mode():
        return probe.worst(FlatNetwork(checkpoint.network, precision)(*probe.window.tensors()).numpy())


def prove_parity(engine: FusionEngine, checkpoint: LoadedCheckpoint, precision: Precision = "fp32") -> None:
    """Return if the engine agrees with PyTorch on random windows.

    Raises:
        EngineError: it differs by more than the precision's tolerance.
    """
    probe = Probe.of(checkpoint)
    worst = probe.worst(engine.infer(probe.window))
    if worst > TOLERANCES[precision]:
        raise EngineError(
            f"{engine.name} differs from the checkpoint's network by {worst:.2g}: what it runs is stale; "
            "remove the .onnx file next to the checkpoint, or choose the engine `torch`"
        )
