"""The network as PyTorch runs it, eagerly, on the CPU: the oracle that other engines are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from emi_engine.base import CheckedEngine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FusionInputs
    from emi_models.networks.base import FusionNetwork

__all__ = ["TorchEngine"]


class TorchEngine(CheckedEngine):
    """Runs the network itself. How many threads it takes is PyTorch's own, process-wide setting."""

    name = "torch-cpu"

    def __init__(self, checkpoint: LoadedCheckpoint) -> None:
        super().__init__(checkpoint)
        self._network: FusionNetwork | None = checkpoint.network

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        assert self._network is not None  # noqa: S101  # `infer` has refused a closed engine
        with torch.inference_mode():
            intensities: NDArray[np.float32] = self._network(window).numpy()
        return intensities

    def _release(self) -> None:
        self._network = None
