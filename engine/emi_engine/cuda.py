"""The GPU: buffers, one stream, and a graph that is captured once and replayed.

`BoundWindows` keeps windows at fixed addresses, for compiled programs and captured graphs.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from emi_engine.protocol import EngineError, EngineUnavailableError
from emi_models import EMOTIONS
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.inputs import FusionShapes

__all__ = ["BoundWindows", "CudaDevice", "Device", "Gpu", "find_gpu"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, as a plan names it: its name and its compute capability such as (8, 9)."""

    name: str
    capability: tuple[int, int]

    @property
    def target(self) -> str:
        """The capability in the notation of targets: `sm89`."""
        return f"sm{self.capability[0]}{self.capability[1]}"


class Device(Protocol):
    """The operations that engines need from a GPU. All work runs on one stream of the device, in order."""

    @property
    def gpu(self) -> Gpu:
        """The card."""

    @property
    def stream(self) -> int:
        """The stream's handle, for libraries that take one."""

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros in the GPU's memory."""

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros in pinned host memory, which the GPU reads and writes directly."""

    def on_stream(self) -> AbstractContextManager[None]:
        """Inside, PyTorch's copies run on the stream; CUDA errors are raised as EngineError."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` enqueues without running it; the result enqueues all of it at once."""

    def wait(self) -> None:
        """Wait until all enqueued work is done."""


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
        except RuntimeError as error:  # PyTorch raises this for CUDA errors
            if isinstance(error, EngineError):
                raise
            raise EngineError(f"the GPU failed: {str(error).partition(chr(10))[0]}; load it again") from error

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Device.capture`."""
        graph = torch.cuda.CUDAGraph()
        # Only this thread is restricted to what can be captured; encoders may use the GPU in others.
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
        EngineUnavailableError: there is none, or its driver does not work.
    """
    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            "no NVIDIA GPU with a working driver is visible to PyTorch; "
            "check with `nvidia-smi`, or choose the engine `onnxruntime`"
        )
    return _describe(torch.device("cuda", torch.cuda.current_device()))


def _describe(device: torch.device) -> Gpu:
    return Gpu(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


class BoundWindows:
    """A fixed number of windows and their intensities, in the memory where a program runs: GPU or host.

    Fewer windows are padded with empty rows; more are computed in several runs. So any batch
    gives the same numbers, and `batch` decides the cost.

    Memory: this object owns all of it while it exists: `inputs` and `intensities` where the
    program runs, and for a GPU a pinned copy of each on the host. `run` copies the caller's window in and the
    result out. So it reads no memory of the caller after it returns, and the caller owns the result.
    """

    def __init__(
        self, shapes: FusionShapes, batch: int, device: Device | None = None, outputs: int = len(EMOTIONS)
    ) -> None:
        """Make empty buffers (no modality present) for `outputs` values a window.

        `device` None means host memory.
        """
        self.batch = batch
        self._outputs = outputs
        self._device = device
        with torch.device("meta"):
            blank = FusionInputs.empty(shapes, batch)
        layouts = [(tuple(t.shape), t.dtype) for t in blank.tensors()]
        layouts.append(((batch, outputs), torch.float32))
        if device is None:
            bound = staged = [torch.zeros(shape, dtype=dtype) for shape, dtype in layouts]
        else:
            bound = [device.buffer(*layout) for layout in layouts]
            staged = [device.staging(*layout) for layout in layouts]
        self.inputs = FusionInputs(*bound[:-1])
        self.intensities: Tensor = bound[-1]  # (batch, outputs), written by the program
        self._staged_inputs = FusionInputs(*staged[:-1])
        self._staged_intensities: Tensor = staged[-1]

    def run(self, window: FusionInputs, launch: Callable[[], None]) -> NDArray[np.float32]:
        """Intensities (B, outputs) of a window of B rows, each run of `launch` over `batch` of them."""
        results = np.empty((window.batch, self._outputs), np.float32)
        for start in range(0, window.batch, self.batch):
            stop = min(start + self.batch, window.batch)
            self.fill(window, start, stop)
            launch()
            self._fetch()
            results[start:stop] = self._staged_intensities[: stop - start].numpy()
        return results

    def fill(self, window: FusionInputs, start: int = 0, stop: int | None = None) -> None:
        """Put rows [start, stop) into the inputs; in the rows after them, no modality is present."""
        count = (window.batch if stop is None else stop) - start
        with nullcontext() if self._device is None else self._device.on_stream():
            for name in FusionInputs.names():
                staged, bound = getattr(self._staged_inputs, name), getattr(self.inputs, name)
                staged[:count] = getattr(window, name)[start : start + count]
                if is_flag := name.endswith("_present"):
                    staged[count:] = False
                if bound is not staged:  # features that are not present are never read: leave them
                    rows = self.batch if is_flag else count
                    bound[:rows].copy_(staged[:rows], non_blocking=True)

    def _fetch(self) -> None:
        """Wait for the intensities, and copy them to the host."""
        if self._device is None:
            return
        with self._device.on_stream():
            self._staged_intensities.copy_(self.intensities, non_blocking=True)
        self._device.wait()
