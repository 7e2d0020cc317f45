"""The GPU as the runtime needs it: buffers, one stream, a graph that is captured once and replayed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from emi_engine.errors import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor

__all__ = ["CudaDevice", "Device", "Gpu", "find_gpu"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, as plans are tied to it: its name, and its compute capability such as (8, 9)."""

    name: str
    capability: tuple[int, int]

    @property
    def target(self) -> str:
        """The capability as targets are written: `sm89`."""
        return f"sm{self.capability[0]}{self.capability[1]}"


class Device(Protocol):
    """What the runtime asks of a GPU. All work goes on one stream of the device's own, in order."""

    @property
    def gpu(self) -> Gpu:
        """The card."""

    @property
    def stream(self) -> int:
        """The stream's handle, for libraries that take one."""

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros in the GPU's memory."""

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros in host memory that the GPU reads and writes by itself (pinned)."""

    def on_stream(self) -> AbstractContextManager[None]:
        """Inside, PyTorch's copies go on the stream; errors of CUDA come out as EngineError."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` enqueues, without running it; what comes back enqueues all of it at once."""

    def wait(self) -> None:
        """Return when all that was enqueued is done."""


class CudaDevice:
    """The GPU that PyTorch has as its current one."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self._device)
        self.gpu = _describe(self._device)
        self.stream: int = self._stream.cuda_stream

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """As `Device.buffer`."""
        with self.on_stream():
            return torch.zeros(shape, dtype=dtype, device=self._device)

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """As `Device.staging`."""
        with self.on_stream():
            return torch.zeros(shape, dtype=dtype, pin_memory=True)

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """As `Device.on_stream`."""
        try:
            with torch.cuda.stream(self._stream):
                yield
        except RuntimeError as error:  # what PyTorch raises for CUDA's errors
            if isinstance(error, EngineError):
                raise
            raise EngineError(f"the GPU failed: {str(error).partition(chr(10))[0]}; load it again") from error

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Device.capture`."""
        graph = torch.cuda.CUDAGraph()
        # Only this thread is held to what may be captured: encoders may be at work on the GPU in others.
        with (
            self.on_stream(),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()

        def replay() -> None:
            with self.on_stream():
                graph.replay()

        return replay

    def wait(self) -> None:
        """As `Device.wait`."""
        with self.on_stream():
            self._stream.synchronize()


def find_gpu() -> Gpu:
    """The GPU that would be used.

    Raises:
        EngineUnavailableError: there is none, or its driver does not run.
    """
    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            "no NVIDIA GPU with a working driver is visible to PyTorch; "
            "see what `nvidia-smi` says, or choose the engine `onnxruntime`"
        )
    return _describe(torch.device("cuda", torch.cuda.current_device()))


def _describe(device: torch.device) -> Gpu:
    return Gpu(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
