"""From a checkpoint file to a running engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal, get_args

from emi_engine.errors import EngineUnavailableError
from emi_models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_engine.precision import Precision
    from emi_engine.protocol import FusionEngine
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["DEVICES", "ENGINES", "Device", "EngineKind", "load_engine"]

EngineKind = Literal[
    "auto", "incremental", "onnxruntime", "torch", "torch-compile", "tensorrt", "tensorrt-rtx"
]
ENGINES: Final[tuple[EngineKind, ...]] = get_args(EngineKind)
Device = Literal["auto", "cpu", "cuda"]
DEVICES: Final[tuple[Device, ...]] = get_args(Device)


def load_engine(
    checkpoint: Path,
    kind: EngineKind = "auto",
    *,
    device: Device = "auto",
    precision: Precision = "fp32",
    threads: int = 1,
    plan: Path | None = None,
    expect_encoders: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> FusionEngine:
    """An engine that runs the checkpoint, ready for its first window.

    Args:
        checkpoint: a file as `emi_models.checkpoint.save_checkpoint` writes it.
        kind: `auto` is `incremental` for a TAEMI and `onnxruntime` for other systems, on the CPU
            (docs/decisions/0005, 0011). It is a fixed choice: an engine that cannot run raises, and nothing
            else runs in its place.
        device: `auto` is the CPU, but for `tensorrt` and `tensorrt-rtx`, which run on a GPU only.
        precision: what the network computes in. On the CPU, fp32 alone.
        threads: ONNX Runtime's threads for one window. Those of PyTorch and numpy are settings of the whole
            process, which an engine leaves alone.
        plan: a plan of `emi compile`; None: the cached one, else a new one. TensorRT only.
        expect_encoders: as for `emi_models.checkpoint.load_checkpoint`.
        cache: where exports and plans are kept; default: `emi-live` in the user's cache.

    Raises:
        CheckpointError: the checkpoint is damaged, belongs to other encoders, or answers to another task.
        EngineUnavailableError: there is no such engine, or its runtime or device is not here.
        EngineError: the network cannot be run by this engine, or what it runs computes something else.
    """
    if kind not in ENGINES:
        raise EngineUnavailableError(f"there is no engine {kind!r}; choose one of {', '.join(ENGINES)}")
    # Here, so that importing this module does not load torch.
    from emi_models.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint, expect_encoders)
    if (task := loaded.network.config.task) != "emi":
        raise CheckpointError(
            f"{checkpoint} was trained for the task {task!r}, and engines run emotions only; "
            "choose a checkpoint of the task 'emi'"
        )
    if kind == "auto":
        from emi_engine.incremental import can_reuse

        kind = "incremental" if can_reuse(loaded) else "onnxruntime"
    if kind == "incremental":
        from emi_engine.incremental import IncrementalEngine

        _need_cpu(kind, device, precision)
        return IncrementalEngine(loaded, partial(_onnxruntime, loaded, checkpoint, cache, threads))
    if kind == "torch":
        from emi_engine.torch_engine import TorchEngine

        return TorchEngine(loaded)
    return _onnxruntime(loaded, checkpoint, cache, threads)


def _need_cpu(kind: EngineKind, device: Device, precision: Precision) -> None:
    """Return if nothing but the CPU in fp32 is asked of an engine that has nothing else."""
    if device == "cuda" or precision != "fp32":
        raise EngineUnavailableError(
            f"the engine `{kind}` runs on the CPU in fp32, not on {device} in {precision}; choose "
            "`tensorrt`, `torch-compile` or `torch`"
        )


def _onnxruntime(
    loaded: LoadedCheckpoint, checkpoint: Path, cache: Path | None, threads: int
) -> FusionEngine:
    try:
        from emi_engine.onnx_export import onnx_model
    except ImportError as error:
        raise EngineUnavailableError(
            f"ONNX cannot be used: {error}; install onnx and onnxscript, or choose the engine `torch`"
        ) from error
    from emi_engine.onnxruntime_engine import OnnxRuntimeEngine
    from emi_engine.parity import prove_parity

    engine = OnnxRuntimeEngine(loaded, onnx_model(loaded, checkpoint, cache), threads=threads)
    prove_parity(engine, loaded)
    return engine
