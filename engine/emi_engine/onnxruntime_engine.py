"""The network in ONNX Runtime: on the CPU, the default for live use, and on a GPU where CUDA is installed.

Needs neither PyTorch nor `onnx`. The export of a checkpoint lies next to it or in the user's cache. Its
metadata say which file it was made from (`HASH_KEY`) and what PyTorch answered to two random windows
(`ANSWERS_KEY`). So an export that is stale, of another checkpoint, or computed wrongly on this machine is
refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_engine.protocol import TOLERANCES, CheckedEngine, EngineError, EngineUnavailableError
from emi_models import MODALITIES
from emi_models.files import user_cache
from emi_models.inputs import FusionInputs
from emi_models.libraries import cpu_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_engine.cuda import Device
    from emi_engine.protocol import FusionSession, Precision
    from emi_models.checkpoint import CheckpointHeader, LoadedCheckpoint
    from emi_models.inputs import FusionShapes, StreamWindow

__all__ = [
    "ANSWERS_KEY",
    "HASH_KEY",
    "PROBE_WINDOWS",
    "OnnxRuntimeCudaEngine",
    "OnnxRuntimeEngine",
    "cache_place",
    "find_model",
    "import_onnxruntime",
    "metadata",
    "need_cuda_provider",
    "open_session",
    "probe_arrays",
    "prove_answers",
    "worst_difference",
]

OPSET: Final = 18  # its LayerNormalization is one fused kernel; 23's Attention does not take a mask per key
MAX_MODEL: Final = 2 << 30  # bytes: protobuf has no larger messages
HASH_KEY: Final = "emi_checkpoint_sha256"
ANSWERS_KEY: Final = "emi_probe_answers"  # JSON: PROBE_WINDOWS rows of intensities, of `probe_arrays`
PROBE_WINDOWS: Final = 2

_METADATA_FIELD: Final = 14  # of ModelProto: metadata_props, each with a key (1) and a value (2)
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types

_log = logging.getLogger(__name__)


def find_model(
    content_hash: str,
    checkpoint_path: Path,
    cache: Path | None = None,
    *,
    precision: Precision = "fp32",
    batch: int | None = None,
) -> bytes | None:
    """The export of a checkpoint from the first place that has it; None: none of them.

    Looks at the `.onnx` file next to the checkpoint, which is in fp32 and for any batch,
    then into the cache (default: the user's). A file of another checkpoint is not used, and a line in the log
    says so.
    """
    kept = cache_place(content_hash, cache, precision, batch)
    places = (checkpoint_path.with_suffix(".onnx"), kept) if (precision, batch) == ("fp32", None) else (kept,)
    for place in places:
        try:
            if not place.is_file() or place.stat().st_size > MAX_MODEL:
                continue
            model = place.read_bytes()
        except OSError:
            continue  # not there
        said = metadata(model)
        if said.get(HASH_KEY) != content_hash:
            _log.warning("%s does not belong to the checkpoint in use; it is not used", place)
        elif ANSWERS_KEY not in said:
            _log.warning("%s was exported by an earlier emi-live; it is not used", place)
        else:
            return model
    return None


def cache_place(content_hash: str, cache: Path | None, precision: Precision, batch: int | None) -> Path:
    """Where an export of this checkpoint by this version's networks is kept."""
    modules = sorted(files("emi_models.networks").iterdir(), key=lambda module: module.name)
    sources = [module.read_text(encoding="utf-8") for module in modules if module.name.endswith(".py")]
    maker = hashlib.sha256("/".join([*sources, str(OPSET), ANSWERS_KEY]).encode()).hexdigest()
    kind = "" if (precision, batch) == ("fp32", None) else f"-{precision}-batch{batch or ''}"
    return (cache or user_cache(os.environ) / "onnx") / f"{content_hash[:32]}-{maker[:16]}{kind}.onnx"


def prove_answers(engine: OnnxRuntimeEngine, model: bytes) -> None:
    """Return if the engine answers the random windows as PyTorch did when `model` was exported, in fp32.

    Raises:
        EngineError: it does not, or the model does not hold the answers.
    """
    try:
        expected = np.array(json.loads(metadata(model)[ANSWERS_KEY]), np.float32)
    except (KeyError, TypeError, ValueError):
        expected = np.empty(0, np.float32)
    if expected.shape != (PROBE_WINDOWS, len(engine.header.targets)):
        raise EngineError(
            "the .onnx file next to the checkpoint does not hold the answers that prove it: it is stale; "
            "remove it, and export it again"
        )
    worst = worst_difference(engine.run_arrays(probe_arrays(engine.shapes, PROBE_WINDOWS)), expected)
    if not worst <= TOLERANCES["fp32"]:
        raise EngineError(
            f"{engine.name} differs from the checkpoint's network by {worst:.2g}: what it runs is stale; "
            "remove the .onnx file next to the checkpoint, or choose the engine `torch`"
        )


def metadata(model: bytes) -> dict[str, str]:
    """The metadata of an ONNX file; empty if it is damaged or has none.

    Read from the wire format (https://protobuf.dev/programming-guides/encoding), field by field, since
    ONNX Runtime gives it only once it has built the whole session, and `onnx` is not needed to run anything.
    """
    found: dict[str, str] = {}
    try:
        for number, entry in _fields(model):
            if number == _METADATA_FIELD:
                pair = dict(_fields(entry))
                found[pair[1].decode()] = pair[2].decode()
    except (IndexError, KeyError, ValueError):
        return {}
    return found


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The fields of a message that have a length: number and content; raises IndexError or ValueError."""
    found, at = [], 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        elif kind == _LENGTH:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("cut off")
            found.append((number, message[at : at + size]))
            at += size
        else:
            raise ValueError(f"wire type {kind}")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def probe_arrays(shapes: FusionShapes, batch: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Random windows with gaps in their masks and modalities missing, by the names of `FusionInputs`.

    The same for the same seed with every release of numpy: `RandomState` is frozen (NEP 19), and exports keep
    a network's answers to them.
    """
    chance = np.random.RandomState(seed)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in MODALITIES:
        size = [batch, getattr(shapes, f"{name}_dim")]
        if name != "text":
            size.insert(1, getattr(shapes, f"{name}_frames"))
            arrays[f"{name}_mask"] = chance.random_sample(size[:2]) < chance.random_sample((batch, 1))
        arrays[name] = chance.standard_normal(size).astype(np.float32)
        arrays[f"{name}_present"] = chance.random_sample(batch) < 0.75
    return {name: arrays[name] for name in FusionInputs.names()}


def worst_difference(intensities: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of an intensity from what is expected, in units of the largest or of 1."""
    return float(np.abs(intensities - expected).max() / max(1.0, np.abs(expected).max()))


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
    raised = onnxruntime.capi.onnxruntime_pybind11_state  # exceptions without a common base
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
