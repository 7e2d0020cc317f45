"""The network as PyTorch runs it, eagerly: in fp32 on the CPU, the oracle for all other engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from emi_engine.base import CheckedEngine
from emi_engine.errors import EngineError
from emi_engine.flat import FlatNetwork
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emi_engine.precision import Precision
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["TorchDevice", "TorchEngine", "torch_name"]

TorchDevice = Literal["cpu", "cuda"]


def torch_name(kind: str, device: TorchDevice, precision: Precision) -> str:
    """An engine's name: `torch-cpu` is in fp32, every other name says its precision."""
    return f"{kind}-{device}" if (device, precision) == ("cpu", "fp32") else f"{kind}-{device}-{precision}"


class TorchEngine(CheckedEngine):
    """Runs the network itself. How many threads it takes on the CPU is PyTorch's own, process-wide setting.

    On the GPU a window is copied there and its intensities back, in the current stream of the calling thread.
    """

    def __init__(
        self, checkpoint: LoadedCheckpoint, *, device: TorchDevice = "cpu", precision: Precision = "fp32"
    ) -> None:
        """Take the checkpoint's network, or on a GPU or in another precision than fp32 a copy of it.

        Raises:
            EngineUnavailableError: `cuda`, and no GPU with a working driver is here.
        """
        super().__init__(checkpoint)
        self.name = torch_name("torch", device, precision)
        self.detail = precision
        if device == "cuda":
            from emi_engine.tensorrt.device import find_gpu

            find_gpu()
        self._on_gpu = device == "cuda"
        self._network: FlatNetwork | None = FlatNetwork(checkpoint.network, precision, device)
        self._last: tuple[torch.Tensor, ...] | None = None  # the window that is on the GPU

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that work of this thread goes on."""
        return torch.cuda.current_stream().cuda_stream

    def enqueue(self) -> None:
        """Start one run over the window last on the GPU and do not wait: for measuring the GPU's own time."""
        self.check_open()
        if self._last is None:
            raise EngineError(f"{self.name} has no window on the GPU; call `infer` before")
        self._forward(self._last)

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        tensors = window.tensors()
        if self._on_gpu:
            tensors = self._last = tuple(tensor.to("cuda") for tensor in tensors)
        intensities: NDArray[np.float32] = self._forward(tensors).cpu().numpy()
        return intensities

    def _forward(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        assert self._network is not None  # noqa: S101  # `infer` has refused a closed engine
        with torch.inference_mode():
            return self._network(*tensors)

    def _release(self) -> None:
        self._network = self._last = None
