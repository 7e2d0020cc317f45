"""Parity: check at load that an engine computes its checkpoint's network, and not an old or another one.

`FlatNetwork` is the network in the form for compilers and exporters, in one precision. `Probe` asks PyTorch
for the intensities of random windows, in fp32 on the CPU; an engine's are compared with these.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from emi_engine.onnxruntime_engine import probe_arrays, worst_difference
from emi_engine.protocol import TOLERANCES, EngineError, torch_dtype
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from emi_engine.protocol import FusionEngine, Precision
    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FusionShapes
    from emi_models.networks.base import FusionNetwork

__all__ = [
    "TOLERANCE",
    "FlatNetwork",
    "Probe",
    "precision_price",
    "probe_window",
    "prove_parity",
]

TOLERANCE: Final = TOLERANCES["fp32"]


class FlatNetwork(nn.Module):
    """The network with a window's eight tensors as its arguments, on a given device, in a given precision.

    Features and intensities are float32; weights and activations have the chosen precision.
    The given network is not changed: on the CPU in fp32 it runs itself, else a copy of it runs.
    """

    def __init__(self, network: FusionNetwork, precision: Precision = "fp32", device: str = "cpu") -> None:
        super().__init__()
        self.dtype = torch_dtype(precision)
        as_it_is = (precision, device) == ("fp32", "cpu")
        self.network = network if as_it_is else copy.deepcopy(network).to(device, self.dtype)
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor:
        """Raw intensities (B, K), float32, of the tensors of a `FusionInputs` in its order."""
        cast = (t.to(self.dtype) if t.is_floating_point() else t for t in tensors)
        return self.network(FusionInputs(*cast)).float()

    if TYPE_CHECKING:

        def __call__(self, *tensors: Tensor) -> Tensor:
            """As `forward`."""


def probe_window(shapes: FusionShapes, batch: int, seed: int = 0) -> FusionInputs:
    """Random windows with gaps in their masks and modalities missing; the same for the same seed."""
    arrays = probe_arrays(shapes, batch, seed)
    return FusionInputs(**{name: torch.from_numpy(array) for name, array in arrays.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Random windows and PyTorch's intensities for them, in fp32 on the CPU: (B, K)."""

    window: FusionInputs
    expected: NDArray[np.float32]

    @classmethod
    def of(cls, checkpoint: LoadedCheckpoint, batch: int = 2) -> Probe:
        """Run the checkpoint's own network."""
        window = probe_window(checkpoint.network.config.shapes, batch)
        with torch.inference_mode():
            return cls(window, checkpoint.network(window).numpy())

    def worst(self, intensities: NDArray[np.float32]) -> float:
        """The largest difference from the expected intensities; see `worst_difference`."""
        return worst_difference(intensities, self.expected)


def precision_price(checkpoint: LoadedCheckpoint, precision: Precision, windows: int) -> float:
    """The largest change of an intensity by a precision, with PyTorch on the CPU and random windows.

    Compiled kernels round in other places, so an engine's value is near this but not the same.
    """
    probe = Probe.of(checkpoint, batch=windows)
    with torch.inference_mode():
        return probe.worst(FlatNetwork(checkpoint.network, precision)(*probe.window.tensors()).numpy())


def prove_parity(engine: FusionEngine, checkpoint: LoadedCheckpoint, precision: Precision = "fp32") -> None:
    """Check that the engine agrees with PyTorch on random windows.

    Raises:
        EngineError: it differs by more than the precision's tolerance.
    """
    probe = Probe.of(checkpoint)
    worst = probe.worst(engine.infer(probe.window))
    if worst > TOLERANCES[precision]:
        raise EngineError(
            f"{engine.name} differs from the checkpoint's network by {worst:.2g}: it runs an old network; "
            "remove the .onnx file next to the checkpoint, or choose the engine `torch`"
        )
