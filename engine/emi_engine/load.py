"""From a checkpoint file to a running engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from emi_engine.errors import EngineUnavailableError
from emi_models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_engine.protocol import FusionEngine

__all__ = ["ENGINES", "EngineKind", "load_engine"]

EngineKind = Literal["auto", "torch", "onnxruntime"]
ENGINES: Final[tuple[EngineKind, ...]] = get_args(EngineKind)


def load_engine(
    checkpoint: Path,
    kind: EngineKind = "auto",
    *,
    threads: int = 1,
    expect_encoders: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> FusionEngine:
    """An engine that runs the checkpoint on the CPU, ready for its first window.

    Args:
        checkpoint: a file as `emi_models.checkpoint.save_checkpoint` writes it.
        kind: `auto` is ONNX Runtime, the faster here (docs/decisions/0005-cpu-engine-default.md). It is a
            fixed choice: an engine that cannot run raises, and nothing else runs in its place.
        threads: ONNX Runtime's threads for one window. PyTorch's are a setting of the whole process, which an
            engine leaves alone.
        expect_encoders: as for `emi_models.checkpoint.load_checkpoint`.
        cache: where exports are kept; default: `emi-live/onnx` in the user's cache.

    Raises:
        CheckpointError: the checkpoint is damaged, belongs to other encoders, or answers to another task.
        EngineUnavailableError: there is no such engine, or its runtime is not installed.
        EngineError: the network cannot be exported to this engine, or the export computes something else.
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
    if kind == "torch":
        from emi_engine.torch_engine import TorchEngine

        return TorchEngine(loaded)
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
