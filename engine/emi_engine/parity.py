"""Proof, at load, that an engine computes its checkpoint's network and not something stale or foreign."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_engine.errors import EngineError
from emi_models.inputs import FusionInputs
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from emi_engine.protocol import FusionEngine
    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FusionShapes

__all__ = ["TOLERANCE", "probe_window", "prove_parity"]

TOLERANCE: Final = 1e-4  # on intensities, fp32


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


def prove_parity(engine: FusionEngine, checkpoint: LoadedCheckpoint) -> None:
    """Return if the engine agrees with PyTorch on random windows.

    Raises:
        EngineError: it differs by more than `TOLERANCE`.
    """
    window = probe_window(engine.shapes, batch=2)
    with torch.inference_mode():
        expected = checkpoint.network(window).numpy()
    worst = float(np.abs(engine.infer(window) - expected).max())
    if worst > TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise EngineError(
            f"{engine.name} differs from the checkpoint's network by {worst:.2g}: what it runs is stale; "
            "remove the .onnx file beside the checkpoint, or choose the engine `torch`"
        )
