"""A TensorRT plan as a fusion engine: buffers bound once, network captured once, one replay for each window.

`load_tensorrt` finds the plan: the named one, one from the cache, or a new one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from emi_engine.cuda import BoundWindows, CudaDevice, find_gpu
from emi_engine.onnx_export import export_onnx
from emi_engine.parity import Probe
from emi_engine.protocol import TOLERANCES, CheckedEngine, EngineError
from emi_engine.tensorrt.build import PlanJob
from emi_engine.tensorrt.plans import Plan, PlanError, find_library
from emi_models.inputs import FusionInputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from emi_engine.cuda import Device
    from emi_engine.protocol import Precision
    from emi_engine.tensorrt.plans import Library, LibraryName
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["TensorRTEngine", "load_tensorrt", "run_plan"]

_log = logging.getLogger(__name__)


class TensorRTEngine(CheckedEngine):
    """Runs a plan of either library on the GPU.

    A plan takes a fixed number of windows; `BoundWindows` explains how fewer and more are handled, and who
    owns which memory. Its addresses never change, because the captured graph holds them.
    """

    def __init__(self, checkpoint: LoadedCheckpoint, plan: Plan, library: Library, device: Device) -> None:
        """Load the plan and run it once; its manifest was already compared with these arguments.

        Raises:
            EngineError: the library refuses the plan, it is of another network, or GPU memory is full.
        """
        super().__init__(checkpoint.header)
        self.plan = plan
        self.name = f"{library.name}-{plan.manifest.precision}-cuda"
        self.detail = f"{plan.manifest.precision}, plan {plan.path}"
        self._checkpoint_config = (checkpoint.header.system, checkpoint.network.config)
        self._library = library
        self._device = device
        library.log.errors.clear()
        self._runtime: Any = library.api.Runtime(library.log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            raise EngineError(
                f"{library.name} refuses the plan {plan.path}: {library.complaint()}; "
                "build it again with `emi compile --force`"
            )
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{library.name} cannot run the plan {plan.path}: {library.complaint()}; "
                "free GPU memory, or choose a smaller batch"
            )
        self._windows = BoundWindows(self.shapes, plan.manifest.batch, device, len(self.header.targets))
        self._bind()
        self._launch: Callable[[], None] = self._execute
        self._warm_up()

    @property
    def batch(self) -> int:
        """How many windows one run takes."""
        return self.plan.manifest.batch

    @property
    def stream(self) -> int:
        """The handle of the CUDA stream that the work runs on."""
        return self._device.stream

    def enqueue(self) -> None:
        """Start one run over the present inputs without waiting, to measure device time."""
        self.check_open()
        self._launch()

    def refit(self, checkpoint: LoadedCheckpoint, model: bytes | None = None) -> None:
        """Run another checkpoint of the same network from the next window on.

        Exporting takes seconds, replacing weights milliseconds. To miss no estimate, export beforehand and
        pass the result as `model`.

        Args:
            checkpoint: same system and configuration; only its weights differ.
            model: `export_onnx(checkpoint, precision, batch)` with the plan's precision and batch.

        Raises:
            EngineError: the plan was built without `--refit` or the checkpoint is of another network; then
                the engine continues unchanged. Or the weights were not accepted: then the engine is closed.
        """
        self.check_open()
        manifest = self.plan.manifest
        if not manifest.refittable:
            raise EngineError(
                f"the plan {self.plan.path} is not refittable: its weights cannot be replaced; "
                "build it with `emi compile --refit`, or load the checkpoint as a new engine"
            )
        if (checkpoint.header.system, checkpoint.network.config) != self._checkpoint_config:
            raise EngineError(
                "the checkpoint has another network than the plan, and a refit replaces only weights; "
                "load it as a new engine"
            )
        model = model or export_onnx(checkpoint, manifest.precision, manifest.batch)
        probe = Probe.of(checkpoint)
        self._device.wait()  # no run may be in progress
        self._library.log.errors.clear()
        refitter = self._library.api.Refitter(self._engine, self._library.log)
        parser = self._library.api.OnnxParserRefitter(refitter, self._library.log)
        taken = parser.refit_from_bytes(model) and refitter.refit_cuda_engine()
        if not taken:
            self.close()  # part of the weights may be new
            raise EngineError(
                f"{self.name} did not accept the new weights: {self._library.complaint()}; "
                "load the checkpoint as a new engine"
            )
        self._launch = self._execute
        self._header = checkpoint.header
        try:
            self._warm_up()  # a captured graph may hold old weights
            worst = probe.worst(self.infer(probe.window))
            if worst > TOLERANCES[manifest.precision]:
                raise EngineError(
                    f"{self.name} differs from the new checkpoint by {worst:.2g} after replacing the "
                    "weights; load the checkpoint as a new engine"
                )
        except BaseException:
            self.close()  # its results would be unchecked
            raise

    def _bind(self) -> None:
        """Check that the plan has our inputs and outputs, and bind each buffer to its name, once.

        An input that the network does not use, such as a modality it was not trained on, may be absent.
        """
        buffers = dict(zip(FusionInputs.names(), self._windows.inputs.tensors(), strict=True))
        buffers["intensities"] = self._windows.intensities
        found = self._described()
        for name in {**found, "intensities": None}:
            buffer, layout = buffers.get(name), found.get(name, "absent")
            expected = None if buffer is None else (tuple(buffer.shape), buffer.dtype)
            if buffer is None or layout != expected:
                raise EngineError(
                    f"the plan {self.plan.path} is of another network: {name} is {layout}, not "
                    f"{expected or 'an input or output of ours'}; build it again with `emi compile --force`"
                )
            if not self._context.set_tensor_address(name, buffer.data_ptr()):
                raise EngineError(f"{self._library.name} cannot bind {name}: {self._library.complaint()}")

    def _described(self) -> dict[str, tuple[tuple[int, ...], torch.dtype | str]]:
        """The plan's own description of its inputs and outputs."""
        types = self._library.api.DataType
        dtypes = {types.FLOAT: torch.float32, types.BOOL: torch.bool}
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        return {
            name: (tuple(self._engine.get_tensor_shape(name)), dtypes.get(dtype, str(dtype)))
            for name in names
            for dtype in (self._engine.get_tensor_dtype(name),)
        }

    def _warm_up(self) -> None:
        """Run once, which initialises the library; then capture, so that a window is one launch."""
        self._execute()
        self._device.wait()
        capturable = getattr(self._context, "is_stream_capturable", None)  # RTX only; TensorRT always is
        if capturable is not None and not capturable(self._device.stream):
            _log.warning("%s cannot be captured as a CUDA graph: each window is enqueued again", self.name)
            return
        self._launch = self._device.capture(self._execute)

    def _execute(self) -> None:
        """Enqueue the network."""
        with self._device.on_stream():
            enqueued = self._context.execute_async_v3(self._device.stream)
        if not enqueued:
            raise EngineError(f"{self.name} cannot run: {self._library.complaint()}; load it again")

    def _run(self, window: FusionInputs) -> NDArray[np.float32]:
        return self._windows.run(window, self._launch)

    def _release(self) -> None:
        try:
            self._device.wait()
        finally:
            self._launch = self._execute  # drops the graph
            self._context = self._engine = self._runtime = None  # in this order: each needs the next
            del self._windows


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
    """An engine that runs the checkpoint on the GPU, checked against PyTorch.

    Args:
        loaded: the checkpoint, from the file at `checkpoint_path`.
        checkpoint_path: that file.
        library: which of the two.
        precision: None means the plan's own, or fp16 if no plan is named.
        batch: windows in one run; None means the plan's own, or 1 if no plan is named.
        plan: a file from `emi compile`. None means the one in the cache, which is built if it does not
            exist: a second with TensorRT-RTX, longer with TensorRT.
        cache: folder for exports and plans; default: `emi-live/onnx` and `emi-live/plans` in the user's
            cache.

    Raises:
        EngineUnavailableError: there is no GPU with a driver here, or the library is not installed.
        EngineError: the plan cannot be built, or differs from the checkpoint's network.
        PlanError: the plan is damaged, or was built from or for something else.
    """
    found = find_library(library)
    find_gpu()  # PyTorch's or the library's own error would be less clear
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
    """The engine of a plan, if the plan matches the arguments and computes the checkpoint's network.

    Raises:
        PlanError: it was built from or for something else.
        EngineError: it cannot run, or gives other numbers.
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
                "coarse for it, or the plan is old; try another precision, or `emi compile --force`"
            )
    except BaseException:
        engine.close()
        raise
    return engine
