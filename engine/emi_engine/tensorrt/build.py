"""What plan is to be built, and building it: from ONNX to a plan's bytes; each failure is one line."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from emi_engine.cuda import find_gpu
from emi_engine.onnx_export import onnx_model
from emi_engine.protocol import EngineError, EngineUnavailableError
from emi_engine.tensorrt.plans import Plan, PlanError, PlanOrigin, manifest_path, read_manifest
from emi_models.errors import CheckpointError
from emi_models.files import user_cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_engine.cuda import Gpu
    from emi_engine.protocol import Precision
    from emi_engine.tensorrt.plans import Library
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["BuildProgress", "PlanJob", "build_plan", "check_targets", "portable_targets"]

# Steps done, of how many, and the name of the phase; False ends the build. It must not raise: the library
# that calls it cannot carry an exception.
BuildProgress: TypeAlias = Callable[[int, int, str], bool]


OLDEST: Final = {"fp32": 80, "bf16": 80, "fp16": 0}  # RTX has no fp32 GEMM for Turing (SM75), nor bf16


def portable_targets(library: Library, precision: Precision) -> tuple[str, ...]:
    """Every compute capability, `sm80` and so on, that a plan in this precision can be built for anywhere.

    Empty for a library that builds for the GPU that is here.
    """
    if not library.builds_without_gpu:
        return ()
    members = sorted(
        (name for name in library.api.ComputeCapability.__members__ if name.startswith("SM")),
        key=lambda name: int(name[2:]),
    )
    return tuple(name.lower() for name in members if int(name[2:]) >= OLDEST[precision])


def check_targets(library: Library, precision: Precision, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets in the library's order, each once; all portable ones if none is named.

    Raises:
        ValueError: the library or the precision does not have one of them.
    """
    possible = portable_targets(library, precision)
    if targets and not possible:
        raise ValueError(f"{library.name} builds for the GPU that is here; leave targets out")
    if unknown := [target for target in targets if target.lower() not in possible]:
        raise ValueError(
            f"{library.name} {library.version} cannot build {precision} for {', '.join(unknown)}; "
            f"choose of {', '.join(possible)}"
        )
    wanted = {target.lower() for target in targets} or set(possible)
    return tuple(target for target in possible if target in wanted)


def build_plan(
    library: Library,
    model: bytes,
    *,
    targets: Sequence[str] = (),
    refit: bool = False,
    progress: BuildProgress | None = None,
) -> bytes:
    """A plan of an ONNX network whose shapes are fixed; its types are those that the ONNX states.

    Args:
        library: which one builds.
        model: the ONNX file's bytes.
        targets: as `check_targets` gives them; what TensorRT-RTX builds for.
        refit: keep weights exchangeable (`TensorRTEngine.refit`), at the price of some fusions.
        progress: is told how far the build is, in the thread that called this, and may end it.

    Raises:
        EngineError: the network cannot be parsed or built; the message has the library's reason.
    """
    api = library.api
    library.log.errors.clear()
    builder = api.Builder(library.log)
    flags = 0
    if library.asks_for_strong_typing:
        flags |= 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = api.OnnxParser(network, library.log)  # owns the weights until the plan is built
    if (
        not parser.parse(model) or network.num_outputs != 1
    ):  # empty bytes parse without an error, to an empty network
        raise EngineError(
            f"{library.name} {library.version} cannot parse the network: {_parse_error(parser, library)}; "
            "choose the engine `onnxruntime`"
        )
    config = builder.create_builder_config()
    config.clear_flag(api.BuilderFlag.TF32)  # on by default: fp32 is to mean fp32
    if refit:
        config.set_flag(api.BuilderFlag.REFIT)
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(api.ComputeCapability, target.upper()), index)
    if progress is not None:
        config.progress_monitor = _monitor(api, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{library.name} {library.version} cannot build the plan: {library.complaint()}; "
            "try another precision or target, or choose the engine `onnxruntime`"
        )
    return bytes(plan)


def _parse_error(parser: Any, library: Library) -> str:
    """What the parser says of the first node that it did not take."""
    if not parser.num_errors:
        return library.complaint()
    error = parser.get_error(0)
    where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{' '.join(error.desc().split())}"


def _monitor(api: Any, progress: BuildProgress) -> Any:
    """The library's view of a `BuildProgress`."""

    class Monitor(api.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress(step + 1, self.steps[phase_name], phase_name)

        def phase_finish(self, phase_name: str) -> None:
            progress(self.steps[phase_name], self.steps[phase_name], phase_name)

    return Monitor()


LARGEST_BATCH: Final = 1024  # of which the inputs alone take 3.8 GB at the paper's sizes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanJob:
    """A plan to build: all that decides it except the checkpoint. `of` checks that the parts agree.

    `gpu` is the card that it is tied to; None for a library that builds for `targets`.
    """

    library: Library
    precision: Precision
    batch: int
    targets: tuple[str, ...]
    refit: bool
    gpu: Gpu | None

    @classmethod
    def of(
        cls,
        library: Library,
        precision: Precision,
        *,
        batch: int = 1,
        targets: Sequence[str] = (),
        refit: bool = False,
    ) -> PlanJob:
        """A job that can be done here; no targets are all that the library can build for.

        Raises:
            EngineUnavailableError: it needs a GPU and there is none.
            ValueError: a target or the batch is impossible.
        """
        if not 1 <= batch <= LARGEST_BATCH:
            raise ValueError(f"a batch of {batch} windows cannot be built; choose from 1 to {LARGEST_BATCH}")
        checked = check_targets(library, precision, targets)
        gpu = None
        # TensorRT measures on the card while it builds; TensorRT-RTX 1.7 asks it only for refittable plans.
        if refit or not library.builds_without_gpu:
            try:
                gpu = find_gpu()
            except EngineUnavailableError as error:
                what = "refittable plans" if library.builds_without_gpu else "plans"
                raise EngineUnavailableError(
                    f"{library.name} builds {what} on a GPU only: {error}"
                ) from error
        return cls(
            library=library,
            precision=precision,
            batch=batch,
            targets=checked,
            refit=refit,
            gpu=None if library.builds_without_gpu else gpu,
        )

    def kept_at(self, checkpoint: LoadedCheckpoint, model: bytes, cache: Path | None = None) -> Path:
        """Where the cache (default: the user's) has this plan, if it does: another path for anything else."""
        return (cache or user_cache(os.environ) / "plans") / f"{self.origin(checkpoint, model).key()}.plan"

    def model(self, checkpoint: LoadedCheckpoint, path: Path, cache: Path | None = None) -> bytes:
        """The network that is built, in ONNX: of the checkpoint from `path`, from the cache or exported now.

        Raises:
            CheckpointError: the checkpoint is not for emotions.
            EngineError: its network cannot be exported.
        """
        if (task := checkpoint.network.config.task) != "emi":
            raise CheckpointError(
                f"{path} was trained for the task {task!r}, and engines run emotions only; "
                "choose a checkpoint of the task 'emi'"
            )
        return onnx_model(checkpoint, path, cache, precision=self.precision, batch=self.batch)

    def origin(self, checkpoint: LoadedCheckpoint, model: bytes) -> PlanOrigin:
        """All that the plan of this network would depend on."""
        return PlanOrigin(
            checkpoint_sha256=checkpoint.content_hash,
            onnx_sha256=hashlib.sha256(model).hexdigest(),
            library=self.library.name,
            library_version=self.library.version,
            gpu=self.gpu.name if self.gpu else "",
            capability=self.gpu.target if self.gpu else "",
            targets=self.targets,
            shapes=checkpoint.network.config.shapes,
            batch=self.batch,
            precision=self.precision,
            refittable=self.refit,
        )

    def done(self, path: Path, origin: PlanOrigin) -> Plan | None:
        """The plan that lies at `path` already, if it is of this origin; None if nothing lies there.

        Raises:
            PlanError: what lies there is damaged, or of another origin.
        """
        if not path.exists() and not manifest_path(path).exists():
            return None
        if difference := read_manifest(path).differs(origin):
            raise PlanError(
                f"the plan {path} is refused: {difference}; "
                "name another file, or build it again with `emi compile --force`"
            )
        return Plan.read(path)

    def build(
        self, path: Path, origin: PlanOrigin, model: bytes, progress: BuildProgress | None = None
    ) -> Plan:
        """Build the plan of `model` and put it at `path`, in place of what lies there.

        Raises:
            EngineError: the library cannot parse or build it; nothing was written.
            PlanError: it cannot be written.
        """
        _log.info("building a plan with %s %s", self.library.name, self.library.version)
        data = build_plan(self.library, model, targets=self.targets, refit=self.refit, progress=progress)
        return Plan.write(path, origin, data)
