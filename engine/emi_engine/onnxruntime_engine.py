"""The network as ONNX Runtime runs it on the CPU: the default for live use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emi_engine.base import CheckedEngine
from emi_engine.errors import EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from emi_models.checkpoint import LoadedCheckpoint
    from emi_models.inputs import FusionInputs

__all__ = ["OnnxRuntimeEngine", "import_onnxruntime", "open_session"]


class OnnxRuntimeEngine(CheckedEngine):
    """Runs an exported network; windows are read in place, without a copy.

    Threads that wait do not spin: between two hops there are some 200 ms, in which the face and speech stages
    need the cores.
    """

    name = "onnxruntime-cpu"

    def __init__(self, checkpoint: LoadedCheckpoint, model: bytes, *, threads: int = 1) -> None:
        """Build a session for `model`, the ONNX form of the checkpoint's network.

        Raises:
            EngineUnavailableError: onnxruntime is not installed.
            EngineError: it cannot run this model.
        """
        super().__init__(checkpoint)
        session = open_session(model, ["CPUExecutionProvider"], threads)
        self._session: Any = session
        self._inputs = [node.name for node in session.get_inputs()]

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        feed = {name: getattr(window, name).numpy() for name in self._inputs}
        intensities: NDArray[np.float32] = self._session.run(None, feed)[0]
        return intensities

    def _release(self) -> None:
        self._session = None


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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors reach the caller as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    raised = onnxruntime.capi.onnxruntime_pybind11_state  # exceptions without a base of their own
    refusals = (raised.Fail, raised.InvalidArgument, raised.InvalidGraph, raised.InvalidProtobuf)
    try:
        # Its own fallback, to the CPU and with a banner on the terminal, is off.
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except (*refusals, raised.NotImplemented, RuntimeError) as error:
        raise EngineError(f"ONNX Runtime cannot run this network: {error}; choose `torch`") from error
