"""The network run by PyTorch: `TorchEngine` eagerly, in fp32 on the CPU the reference for all other engines.

The compiled engine uses torch.compile: C++ kernels on the CPU, Triton kernels in one graph on the GPU.

PyTorch's own CUDA graphs (mode `reduce-overhead`) belong to the thread that made them and
copy their inputs at each run. An engine may run in another thread than the one that made it, so the graph
is our own.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

import torch

from emi_engine.cuda import BoundWindows
from emi_engine.parity import FlatNetwork, Probe
from emi_engine.protocol import TOLERANCES, CheckedEngine, EngineError, EngineUnavailableError
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from emi_engine.cuda import Device
    from emi_engine.protocol import Precision
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["CompiledTorchEngine", "TorchDevice", "TorchEngine", "torch_name"]

TorchDevice = Literal["cpu", "cuda"]


def torch_name(kind: str, device: TorchDevice, precision: Precision) -> str:
    """An engine's name: `torch-cpu` is in fp32; every other name contains its precision."""
    return f"{kind}-{device}" if (device, precision) == ("cpu", "fp32") else f"{kind}-{device}-{precision}"


class TorchEngine(CheckedEngine):
    """Runs the network itself. Its number of CPU threads is PyTorch's own, process-wide setting.

    On the GPU a window is copied there and its intensities back, in the current stream of the calling thread.
    """

    def __init__(
        self, checkpoint: LoadedCheckpoint, *, device: TorchDevice = "cpu", precision: Precision = "fp32"
    ) -> None:
        """Use the checkpoint's network; on a GPU or in another precision than fp32, use a copy of it.

        Raises:
            EngineUnavailableError: `cuda`, but there is no GPU with a working driver.
        """
        super().__init__(checkpoint.header)
        self.name = torch_name("torch", device, precision)
        self.detail = precision
        if device == "cuda":
            from emi_engine.cuda import find_gpu

            find_gpu()
        self._on_gpu = device == "cuda"
        self._network: FlatNetwork | None = FlatNetwork(checkpoint.network, precision, device)
        self._last: tuple[torch.Tensor, ...] | None = None  # the window that is on the GPU

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that this thread's work runs on."""
        return torch.cuda.current_stream().cuda_stream

    def enqueue(self) -> None:
        """Start one run over the last window on the GPU without waiting, to measure device time."""
        self.check_open()
        if self._last is None:
            raise EngineError(f"{self.name} has no window on the GPU; call `infer` first")
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


WARM_UP: Final = 3  # runs before a capture; the first ones build and choose kernels


class CompiledTorchEngine(CheckedEngine):
    """Runs the network as compiled by torch.compile, for a fixed number of windows (see `BoundWindows`).

    Inputs and output are bound once; on the GPU to one captured graph. `BoundWindows` says who owns memory.
    On the CPU it uses PyTorch's threads, a setting of the whole process.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        *,
        device: TorchDevice = "cpu",
        precision: Precision = "fp32",
        batch: int = 1,
        compiled: bool = True,
        gpu: Device | None = None,
    ) -> None:
        """Compile, which takes from seconds to minutes, run, capture, and compare with PyTorch in fp32.

        Args:
            checkpoint: the network.
            device: where it runs.
            precision: type of weights and activations.
            batch: windows in one run.
            compiled: False: capture PyTorch's own kernels, to measure the gain of the graph alone.
            gpu: the GPU to use instead of the current one.

        Raises:
            EngineUnavailableError: there is no GPU, or no compiler for this device.
            EngineError: the network cannot be compiled or captured, or the result differs from the network.
        """
        super().__init__(checkpoint.header)
        self.name = torch_name("torch-compile" if compiled else "torch-graph", device, precision)
        self.detail = f"{precision}, {batch} window{'s' if batch > 1 else ''} a run"
        self._precision = precision
        self._gpu = (gpu or _current_gpu()) if device == "cuda" else None
        self._bound = BoundWindows(self.shapes, batch, self._gpu, len(self.header.targets))
        self._network: Callable[..., torch.Tensor] | None = None
        self._launch: Callable[[], None] = self._execute
        try:
            with _quiet(), self._on_stream():
                network = FlatNetwork(checkpoint.network, precision, str(self._bound.intensities.device))
                self._network = self._compile(network) if compiled else network
                self._warm_up()
        except EngineError:
            raise
        except RuntimeError as error:  # the compilers raise many kinds of errors
            raise EngineError(
                f"torch.compile cannot make {self.name}: {_first_line(error)}; choose the engine `torch`"
            ) from error
        self._prove(checkpoint)

    @property
    def batch(self) -> int:
        """How many windows one run takes."""
        return self._bound.batch

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that all work runs on."""
        if self._gpu is None:
            raise EngineError(f"{self.name} has no CUDA stream; it runs on the CPU")
        return self._gpu.stream

    def enqueue(self) -> None:
        """Start one run over the present inputs without waiting, to measure device time."""
        self.check_open()
        self._launch()

    def _compile(self, network: FlatNetwork) -> Callable[..., torch.Tensor]:
        _need_compiler(on_gpu=self._gpu is not None)
        # Exported first: Dynamo counts compilations per Python code object. All engines of a process share
        # it, and Dynamo gives up after a few.
        with torch.no_grad():
            program = torch.export.export(network, self._bound.inputs.tensors()).module()
        if self._gpu is None:
            return torch.compile(program, fullgraph=True, dynamic=False, options={"freezing": True})
        return torch.compile(program, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")

    def _warm_up(self) -> None:
        """Run once, which builds kernels; then capture, so that a window is one launch."""
        if self._gpu is None:
            self._execute()
            return
        for _ in range(WARM_UP):
            self._execute()
        self._gpu.wait()
        self._launch = self._gpu.capture(self._execute)

    def _execute(self) -> None:
        """Enqueue the network and the copy of its result."""
        assert self._network is not None  # noqa: S101  # a closed engine is refused before
        with torch.no_grad(), self._on_stream():
            self._bound.intensities.copy_(self._network(*self._bound.inputs.tensors()))

    def _on_stream(self) -> AbstractContextManager[None]:
        return nullcontext() if self._gpu is None else self._gpu.on_stream()

    def _prove(self, checkpoint: LoadedCheckpoint) -> None:
        probe = Probe.of(checkpoint)
        worst = probe.worst(self.infer(probe.window))
        if worst > TOLERANCES[self._precision]:
            self.close()
            raise EngineError(
                f"{self.name} differs from the checkpoint's network by {worst:.2g}; "
                "choose another precision, or the engine `torch`"
            )

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        return self._bound.run(window, self._launch)

    def _release(self) -> None:
        if self._gpu is not None:
            self._gpu.wait()
        self._launch = self._execute  # drops the graph
        self._network = None
        del self._bound


def _current_gpu() -> Device:
    from emi_engine.cuda import CudaDevice, find_gpu

    find_gpu()  # gives a better error than PyTorch if there is none
    return CudaDevice()


def _need_compiler(*, on_gpu: bool) -> None:
    """Check that the compiler that torch.compile needs is installed."""
    if on_gpu:
        if find_spec("triton") is None:
            raise EngineUnavailableError(
                "torch.compile needs Triton for a GPU, and it is not installed; "
                "install the package triton, or choose the engine `torch`"
            )
        return
    compiler = os.environ.get("CXX", "g++")  # Inductor looks for it in the same way
    if shutil.which(compiler) is None:
        raise EngineUnavailableError(
            f"torch.compile needs a C++ compiler, and there is no `{compiler}`; "
            "install g++ or set CXX, or choose the engine `onnxruntime`"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the compilers' messages for their own developers from the user's terminal."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "No CUDA runtime is found", on every machine without a GPU
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the compilers
            yield
    finally:
        logger.setLevel(level)
