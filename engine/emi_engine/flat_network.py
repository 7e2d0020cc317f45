"""A network as compilers want it: eight tensors in, intensities out, computed in one stated precision."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn

from emi_engine.protocol import torch_dtype
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from torch import Tensor

    from emi_engine.protocol import Precision
    from emi_models.networks.base import FusionNetwork

__all__ = ["FlatNetwork"]


class FlatNetwork(nn.Module):
    """The network with a window's eight tensors as its arguments, on a given device, in a given precision.

    Features come in and intensities go out in float32; between, weights and activations are in the precision.
    The network given is left as it is: on the CPU in fp32 it runs itself, else a copy of it.
    """

    def __init__(self, network: FusionNetwork, precision: Precision = "fp32", device: str = "cpu") -> None:
        super().__init__()
        self.dtype = torch_dtype(precision)
        as_it_is = (precision, device) == ("fp32", "cpu")
        self.network = network if as_it_is else copy.deepcopy(network).to(device, self.dtype)
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor:
        """Raw intensities (B, 6), float32, of the tensors of a `FusionInputs` in its order."""
        cast = (t.to(self.dtype) if t.is_floating_point() else t for t in tensors)
        return self.network(FusionInputs(*cast)).float()

    if TYPE_CHECKING:

        def __call__(self, *tensors: Tensor) -> Tensor:
            """As `forward`."""
