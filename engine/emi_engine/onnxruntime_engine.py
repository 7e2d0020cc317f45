"""The network in ONNX Runtime: on the CPU, the default for live use, and on a GPU where CUDA is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_engine.engine import CheckedEngine
from emi_engine.protocol import EngineError, EngineUnavailableError
from emi_models.inputs import FusionInputs
from emi_models.sessions import cpu_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from emi_engine.cuda import Device
    from emi_engine.protocol import FusionSession, Precision
    from emi_models.checkpoint import CheckpointHeader, LoadedCheckpoint
    from emi_models.inputs import StreamWindow

__all__ = [
    "OnnxRuntimeCudaEngine",
    "OnnxRuntimeEngine",
    "import_onnxruntime",
    "need_cuda_provider",
    "open_session",
]


class OnnxRuntimeEngine(CheckedEngine):
    """Runs an exported network; windows are read in place, without a copy.

    Threads that wait do not spin: between two hops there are some 200 ms, in which the face and speech stages
    need the cores.
    """

    name = "onnxruntime-cpu"

    def __init__(self, header: CheckpointHeader, model: bytes, *, threads: int = 1) -> None:
        """Build a session for `model`, the ONNX form of the network of the checkpoint with this header.

        Raises:
            EngineUnavailableError: onnxruntime is not installed.
            EngineError: it cannot run this model.
        """
        super().__init__(header)
        session = open_session(model, ["CPUExecutionProvider"], threads)
        self._session: Any = session
        self._inputs = [node.name for node in session.get_inputs()]

    def session(self) -> FusionSession:
        """A stream of windows that stay numpy arrays on their way into ONNX Runtime."""
        self.check_open()
        return _ArraySession(self)

    def run_arrays(self, arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Raw intensities (B, K) of windows in numpy, by the names of `FusionInputs`, checked before.

        Raises:
            EngineError: the engine is closed, or its result is not finite.
        """
        self.check_open()
        intensities: NDArray[np.float32] = self._session.run(
            None, {name: arrays[name] for name in self._inputs}
        )[0]
        return self.checked(intensities, len(arrays["text_present"]))

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        feed = {name: getattr(window, name).numpy() for name in self._inputs}
        intensities: NDArray[np.float32] = self._session.run(None, feed)[0]
        return intensities

    def _release(self) -> None:
        self._session = None


class _ArraySession:
    """A `FusionSession` that pads each window in numpy and has ONNX Runtime compute it whole."""

    def __init__(self, engine: OnnxRuntimeEngine) -> None:
        self._engine = engine

    def infer(self, window: StreamWindow, *, counterfactuals: bool = False) -> NDArray[np.float32]:
        """As `FusionSession.infer`."""
        shapes = self._engine.shapes
        window.check(shapes)
        window.check_finite()
        return self._engine.run_arrays(window.arrays(shapes, counterfactuals=counterfactuals))

    def restart(self) -> None:
        """Nothing is kept from window to window."""


def import_onnxruntime() -> Any:
    """The package.

    Raises:
        EngineUnavailableError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailableError(
            f"onnxruntime cannot be imported ({error}); install it, or choose the engine `torch`"
        ) from error
    return onnxruntime


def open_session(model: bytes, providers: Sequence[str | tuple[str, dict[str, str]]], threads: int) -> Any:
    """A session that runs `model` on the first of the providers that can.

    Raises:
        EngineUnavailableError: onnxruntime is not installed.
        EngineError: it cannot run this model.
    """
    onnxruntime = import_onnxruntime()
    options = cpu_options(threads)
    raised = onnxruntime.capi.onnxruntime_pybind11_state  # exceptions without a base of their own
    refusals = (raised.Fail, raised.InvalidArgument, raised.InvalidGraph, raised.InvalidProtobuf)
    try:
        # Its own fallback, to the CPU and with a banner on the terminal, is off.
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except (*refusals, raised.NotImplemented, RuntimeError) as error:
        raise EngineError(f"ONNX Runtime cannot run this network: {error}; choose `torch`") from error


PROVIDER: Final = "CUDAExecutionProvider"


class OnnxRuntimeCudaEngine(CheckedEngine):
    """Runs an exported network of a fixed batch on the GPU, with inputs and output bound once.

    Who owns which memory stands at `BoundWindows`. The provider works on the stream that the copies go on.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        model: bytes,
        *,
        precision: Precision,
        batch: int,
        gpu: Device | None = None,
    ) -> None:
        """Build a session for `model`, the ONNX form of the checkpoint's network, on the current GPU.

        Args:
            checkpoint: the network.
            model: as `onnx_model` gives it for this precision and batch.
            precision: that of the model.
            batch: windows in one run: that of the model.
            gpu: the GPU to run on in place of the current one.

        Raises:
            EngineUnavailableError: no GPU is here, or this onnxruntime has no CUDA or cannot load it.
            EngineError: it cannot run this model.
        """
        super().__init__(checkpoint.header)
        self.name = f"onnxruntime-cuda-{precision}"
        self.detail = f"{precision}, {batch} window{'s' if batch > 1 else ''} a run"
        onnxruntime = need_cuda_provider()
        from emi_engine.cuda import BoundWindows, CudaDevice, find_gpu  # loads PyTorch

        if gpu is None:
            find_gpu()
            gpu = CudaDevice()
        self._gpu = gpu
        self._bound = BoundWindows(self.shapes, batch, gpu, len(self.header.targets))
        options = {
            "device_id": str(self._bound.intensities.device.index or 0),
            "user_compute_stream": str(gpu.stream),
            "use_tf32": "0",  # on by default: fp32 is to mean fp32
        }
        session = open_session(model, [(PROVIDER, options)], threads=1)
        if session.get_providers()[0] != PROVIDER:  # it would run on the CPU and only log that
            raise EngineUnavailableError(
                f"onnxruntime cannot load its {PROVIDER}, so it would run on the CPU; check that its CUDA "
                "and cuDNN are the installed ones, or choose the engine `torch-compile`"
            )
        self._session: Any = session
        self._binding: Any = self._bind(onnxruntime)

    @property
    def batch(self) -> int:
        """How many windows one run takes."""
        return self._bound.batch

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that all work goes on."""
        return self._gpu.stream

    def enqueue(self) -> None:
        """Run once over what the inputs hold: for measuring the GPU's own time."""
        self.check_open()
        self._launch()

    def _bind(self, onnxruntime: Any) -> Any:
        binding = self._session.io_binding()
        wanted = {node.name for node in self._session.get_inputs()}  # a modality not trained on has none
        inputs = zip(FusionInputs.names(), self._bound.inputs.tensors(), strict=True)
        for name, tensor in inputs:
            if name in wanted:
                kind = np.float32 if tensor.is_floating_point() else np.bool_
                binding.bind_input(
                    name, "cuda", tensor.device.index or 0, kind, tuple(tensor.shape), tensor.data_ptr()
                )
        output = self._bound.intensities
        binding.bind_output(
            "intensities",
            "cuda",
            output.device.index or 0,
            np.float32,
            tuple(output.shape),
            output.data_ptr(),
        )
        return binding

    def _launch(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise EngineError(f"{self.name} cannot run: {reason}; choose `torch-compile`") from error

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        return self._bound.run(window, self._launch)

    def _release(self) -> None:
        self._gpu.wait()
        self._binding = self._session = None
        del self._bound


def need_cuda_provider() -> Any:
    """The package onnxruntime, which has CUDA's provider.

    Raises:
        EngineUnavailableError: it is not installed, or is the one for CPUs.
    """
    onnxruntime = import_onnxruntime()
    if PROVIDER not in (have := onnxruntime.get_available_providers()):
        raise EngineUnavailableError(
            f"this onnxruntime has no {PROVIDER} (it has {', '.join(have)}); "
            "install onnxruntime-gpu in its place, or choose the engine `torch-compile`"
        )
    return onnxruntime
