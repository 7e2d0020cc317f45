"""From a checkpoint to a running plan: one that is named, one kept from an earlier start, or a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emi_engine.errors import EngineError
from emi_engine.parity import Probe
from emi_engine.precision import TOLERANCES
from emi_engine.tensorrt.device import CudaDevice, find_gpu
from emi_engine.tensorrt.job import PlanJob
from emi_engine.tensorrt.library import find_library
from emi_engine.tensorrt.plans import Plan, PlanError
from emi_engine.tensorrt.runtime import TensorRTEngine

if TYPE_CHECKING:
    from pathlib import Path

    from emi_engine.precision import Precision
    from emi_engine.tensorrt.device import Device
    from emi_engine.tensorrt.library import Library, LibraryName
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["load_tensorrt", "run_plan"]


def load_tensorrt(
    loaded: LoadedCheckpoint,
    checkpoint_path: Path,
    *,
    library: LibraryName,
    precision: Precision | None = None,
    batch: int | None = None,
    plan: Path | None = None,
    cache: Path | None = None,
) -> TensorRTEngine:
    """An engine that runs the checkpoint on the GPU, proved against PyTorch.

    Args:
        loaded: the checkpoint, from the file at `checkpoint_path`.
        checkpoint_path: that file.
        library: which of the two.
        precision: None is the plan's own, or fp16 where no plan is named.
        batch: windows in one run; None is the plan's own, or 1 where no plan is named.
        plan: a file that `emi compile` wrote. None is the one in the cache, which is built if it is not
            there: a second with TensorRT-RTX, longer with TensorRT.
        cache: where exports and plans are kept; default: `emi-live/onnx` and `emi-live/plans` in the user's
            cache.

    Raises:
        EngineUnavailableError: there is no GPU with a driver here, or the library is not installed.
        EngineError: the plan cannot be built, or it computes something else than the checkpoint's network.
        PlanError: the plan is damaged, or was built from or for something else.
    """
    found = find_library(library)
    find_gpu()  # before PyTorch or the library would say it less well
    device = CudaDevice()
    if plan is None:
        job = PlanJob.of(found, precision or "fp16", batch=batch or 1)
        model = job.model(loaded, checkpoint_path, cache)
        kept, origin = job.kept_at(loaded, model, cache), job.origin(loaded, model)
        ready = job.done(kept, origin) or job.build(kept, origin, model)
    else:
        ready = Plan.read(plan)
    return run_plan(loaded, ready, found, device, precision=precision, batch=batch)


def run_plan(
    loaded: LoadedCheckpoint,
    plan: Plan,
    library: Library,
    device: Device,
    *,
    precision: Precision | None = None,
    batch: int | None = None,
) -> TensorRTEngine:
    """The engine of a plan, if it fits all of these and computes what the checkpoint's network does.

    Raises:
        PlanError: it was built from or for something else.
        EngineError: it cannot be run, or gives other numbers.
    """
    reason = plan.manifest.unfit(
        checkpoint_sha256=loaded.content_hash,
        library=library.name,
        library_version=library.version,
        gpu=device.gpu,
        shapes=loaded.network.config.shapes,
        precision=precision,
        batch=batch,
    )
    if reason is not None:
        raise PlanError(
            f"the plan {plan.path} is refused: {reason}; build it again with `emi compile --force`"
        )
    probe = Probe.of(loaded)
    engine = TensorRTEngine(loaded, plan, library, device)
    try:
        worst = probe.worst(engine.infer(probe.window))
        if worst > TOLERANCES[plan.manifest.precision]:
            raise EngineError(
                f"{engine.name} differs from the checkpoint's network by {worst:.2g}: the precision is too "
                "coarse for it, or the plan is stale; try another precision, or `emi compile --force`"
            )
    except BaseException:
        engine.close()
        raise
    return engine
