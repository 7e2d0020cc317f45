"""From a checkpoint file to a running engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, get_args

from emi_engine.protocol import PRECISIONS, EngineUnavailableError
from emi_models.libraries import EXPORT, lacking

if TYPE_CHECKING:
    from pathlib import Path

    from emi_engine.protocol import FusionEngine, Precision
    from emi_engine.torch_engine import TorchDevice
    from emi_models.checkpoint import CheckpointHeader, LoadedCheckpoint

__all__ = [
    "DEVICES",
    "ENGINES",
    "FALLBACKS",
    "Device",
    "EngineKind",
    "Step",
    "load_engine",
    "no_step",
    "runtime_missing",
]

EngineKind = Literal[
    "auto", "incremental", "onnxruntime", "torch", "torch-compile", "tensorrt", "tensorrt-rtx"
]
ENGINES: Final[tuple[EngineKind, ...]] = get_args(EngineKind)
# What replaces an engine that fails at every window: fast engines first, the simplest last.
FALLBACKS: Final[tuple[EngineKind, ...]] = ("onnxruntime", "incremental", "torch")
Device = Literal["auto", "cpu", "cuda"]
# Floating-point operations of a whole pass. Above this, a pass takes longer than the hundred calls of a hop
# that reuses frames, and their waits for Python's lock.
PAYS_FLOPS: Final = 1_000_000_000
ON_GPU_ONLY: Final = ("tensorrt", "tensorrt-rtx")
DEVICES: Final[tuple[Device, ...]] = get_args(Device)
# What an engine needs for a checkpoint. Where nobody has exported it yet, `onnxruntime` needs PyTorch too.
_PACKAGES: Final[Mapping[EngineKind, tuple[str, ...]]] = {
    "auto": ("onnxruntime",),
    "onnxruntime": ("onnxruntime",),
    "incremental": ("torch",),
    "torch": ("torch",),
    "torch-compile": ("torch",),
    "tensorrt": EXPORT,
    "tensorrt-rtx": EXPORT,
}

# Entered around each part of loading that takes a while; the text says what is done, e.g. "loading PyTorch".
Step = Callable[[str], AbstractContextManager[object]]


def no_step(what: str) -> AbstractContextManager[object]:
    """A `Step` that does nothing."""
    return nullcontext()


def runtime_missing(kind: EngineKind) -> str | None:
    """Why this engine cannot run here, if its packages are not installed; none of them is imported."""
    if kind in ("tensorrt", "tensorrt-rtx"):
        from emi_engine.tensorrt.plans import MODULES, REMEDIES

        if not any(find_spec(name) for name in MODULES[kind]):
            return f"{MODULES[kind][0]} is not installed; {REMEDIES[kind]}"
    return _lacking(kind)


def _lacking(kind: EngineKind) -> str | None:
    """What of Python an engine needs and is not installed; of TensorRT, all but the library itself."""
    return lacking(*_PACKAGES[kind], extra="gpu")


def load_engine(
    checkpoint: Path,
    kind: EngineKind = "auto",
    *,
    device: Device = "auto",
    precision: Precision | None = None,
    batch: int = 1,
    threads: int = 1,
    plan: Path | None = None,
    expect_encoders: Mapping[str, str] | None = None,
    cache: Path | None = None,
    step: Step = no_step,
) -> FusionEngine:
    """An engine that runs the checkpoint, ready for its first window.

    Args:
        checkpoint: a file as `emi_models.checkpoint.save_checkpoint` writes it.
        kind: `auto` is `incremental` for a TAEMI of the paper's sizes where PyTorch is installed, and
            `onnxruntime` for smaller ones, other systems and without PyTorch, on the CPU
            (docs/decisions/0005, 0011). It is a fixed choice: an engine that cannot run raises, and nothing
            else runs in its place.
        device: `auto` is the CPU, but for `tensorrt` and `tensorrt-rtx`, which run on a GPU only.
        precision: what the network computes in; what each engine can is in docs/engines.md. None is fp32, and
            for TensorRT that of the plan, or fp16 without one.
        batch: windows that one run takes, where an engine's shapes are fixed. Fewer are filled up, more go in
            several runs.
        threads: ONNX Runtime's threads for one window. Those of PyTorch and numpy are settings of the whole
            process, which an engine leaves alone.
        plan: a plan of `emi compile`; None: the cached one, else a new one. TensorRT only.
        expect_encoders: as for `emi_models.checkpoint.load_checkpoint`.
        cache: where exports and plans are kept; default: `emi-live` in the user's cache.
        step: entered around what takes a while.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to other encoders.
        EngineUnavailableError: there is no such engine, or its runtime or device is not here, or the
            checkpoint was never exported and PyTorch, which does it, is not installed.
        EngineError: the network cannot be run by this engine, or what it runs computes something else.
    """
    if kind not in ENGINES:
        raise EngineUnavailableError(f"there is no engine {kind!r}; choose one of {', '.join(ENGINES)}")
    from emi_models.checkpoint import read_header

    header = read_header(checkpoint, expect_encoders)
    if kind == "auto":
        kind = "incremental" if _reuse_pays(header) and _lacking("incremental") is None else "onnxruntime"
    if plan is not None and kind not in ON_GPU_ONLY:
        raise EngineUnavailableError(
            f"the engine `{kind}` has no plans; leave {plan} out, or choose {' or '.join(ON_GPU_ONLY)}"
        )
    if reason := _lacking(kind):
        raise EngineUnavailableError(f"the engine `{kind}` cannot run here: {reason}")
    make = _MAKERS.get(kind, _tensorrt)
    return make(_Wanted(header, checkpoint, kind, device, precision, batch, threads, plan, cache, step))


def _reuse_pays(header: CheckpointHeader) -> bool:
    """Whether to reuse frames across hops is possible and worth it: a TAEMI, and a large one.

    The packaged one is too small: with busy stages its hops took twice as long as whole windows
    (docs/decisions/0011).
    """
    if header.system != "taemi" or header.config.get("gated") or header.config.get("divergence"):
        return False
    from emi_models.networks.config import TaemiConfig, taemi_work

    settings = {**header.config, "shapes": header.shapes, "modalities": header.modalities}
    try:
        return taemi_work(TaemiConfig(**settings)).flops >= PAYS_FLOPS  # type: ignore[arg-type]  # checked by it
    except (TypeError, ValueError):
        return False  # refused with better words when the network is built


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What `load_engine` was asked for, the checkpoint's header read and `auto` decided."""

    header: CheckpointHeader
    checkpoint: Path
    kind: EngineKind
    device: Device
    precision: Precision | None
    batch: int
    threads: int
    plan: Path | None
    cache: Path | None
    step: Step

    def load(self) -> LoadedCheckpoint:
        """The network in PyTorch, which takes seconds."""
        from emi_models.checkpoint import load_checkpoint

        with self.step("loading PyTorch"):
            return load_checkpoint(self.checkpoint)

    def need(self, device: Device, precisions: tuple[Precision, ...]) -> None:
        """Return if no other device and precision is asked for than these; else raise."""
        if self.device not in ("auto", device) or self.precision not in (None, *precisions):
            raise EngineUnavailableError(
                f"the engine `{self.kind}` runs on {device} in {', '.join(precisions)}, not on {self.device} "
                f"in {self.precision or 'its own precision'}; docs/engines.md says what each engine can"
            )


def _incremental(wanted: _Wanted) -> FusionEngine:
    wanted.need("cpu", ("fp32",))
    from emi_engine.incremental import IncrementalEngine

    return IncrementalEngine(wanted.load(), partial(_onnxruntime_cpu, wanted))


def _torch(wanted: _Wanted) -> FusionEngine:
    from emi_engine.torch_engine import TorchEngine

    device: TorchDevice = "cuda" if wanted.device == "cuda" else "cpu"
    return TorchEngine(wanted.load(), device=device, precision=wanted.precision or "fp32")


def _torch_compile(wanted: _Wanted) -> FusionEngine:
    from emi_engine.torch_engine import CompiledTorchEngine

    device: TorchDevice = "cuda" if wanted.device == "cuda" else "cpu"
    return CompiledTorchEngine(
        wanted.load(), device=device, precision=wanted.precision or "fp32", batch=wanted.batch
    )


def _onnxruntime(wanted: _Wanted) -> FusionEngine:
    if wanted.device == "cuda":
        return _onnxruntime_cuda(wanted)
    wanted.need("cpu", ("fp32",))
    return _onnxruntime_cpu(wanted)


def _onnxruntime_cpu(wanted: _Wanted) -> FusionEngine:
    """Without PyTorch, if somebody has exported this very checkpoint."""
    from emi_engine.onnxruntime_engine import OnnxRuntimeEngine, find_model, prove_answers
    from emi_models.checkpoint import content_hash

    model = find_model(content_hash(wanted.checkpoint), wanted.checkpoint, wanted.cache)
    if model is None:
        if reason := lacking(*EXPORT, extra="gpu"):
            raise EngineUnavailableError(
                f"{wanted.checkpoint} has no ONNX of itself next to it, and none can be made: {reason}"
            )
        from emi_engine.onnx_export import onnx_model

        model = onnx_model(wanted.load(), wanted.checkpoint, wanted.cache, step=wanted.step)
    engine = OnnxRuntimeEngine(wanted.header, model, threads=wanted.threads)
    prove_answers(engine, model)
    return engine


def _onnxruntime_cuda(wanted: _Wanted) -> FusionEngine:
    if reason := lacking(*EXPORT, extra="gpu"):
        raise EngineUnavailableError(f"the engine `onnxruntime` cannot run on a GPU here: {reason}")
    from emi_engine.onnxruntime_engine import OnnxRuntimeCudaEngine, need_cuda_provider

    need_cuda_provider()  # before the export, which takes seconds
    from emi_engine.onnx_export import onnx_model
    from emi_engine.parity import prove_parity

    loaded, precision, batch = wanted.load(), wanted.precision or "fp32", wanted.batch
    model = onnx_model(
        loaded, wanted.checkpoint, wanted.cache, precision=precision, batch=batch, step=wanted.step
    )
    engine = OnnxRuntimeCudaEngine(loaded, model, precision=precision, batch=batch)
    prove_parity(engine, loaded, precision)
    return engine


def _tensorrt(wanted: _Wanted) -> FusionEngine:
    wanted.need("cuda", PRECISIONS)
    from emi_engine.tensorrt.engine import load_tensorrt

    return load_tensorrt(
        wanted.load(),
        wanted.checkpoint,
        library="tensorrt-rtx" if wanted.kind == "tensorrt-rtx" else "tensorrt",
        precision=wanted.precision,
        batch=None if wanted.plan else wanted.batch,
        plan=wanted.plan,
        cache=wanted.cache,
    )


_MAKERS: Final = {
    "incremental": _incremental,
    "torch": _torch,
    "torch-compile": _torch_compile,
    "onnxruntime": _onnxruntime,
}
