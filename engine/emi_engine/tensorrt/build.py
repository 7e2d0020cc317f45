"""Decide which plan to build, and build it: from ONNX to a plan's bytes. Each failure is one line."""

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
from emi_models.files import user_cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_engine.cuda import Gpu
    from emi_engine.protocol import Precision
    from emi_engine.tensorrt.plans import Library
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["BuildProgress", "PlanJob", "build_plan", "check_targets", "portable_targets"]

# Steps done, total steps, and the name of the phase; False ends the build. It must not raise: the library
# that calls it cannot pass on an exception.
BuildProgress: TypeAlias = Callable[[int, int, str], bool]


OLDEST: Final = {"fp32": 80, "bf16": 80, "fp16": 0}  # RTX has no fp32 GEMM for Turing (SM75), nor bf16


def portable_targets(library: Library, precision: Precision) -> tuple[str, ...]:
    """All compute capabilities (`sm80`, …) for which a plan in this precision can be built on any machine.

    Empty for a library that builds only for the GPU of this machine.
    """
    if not library.builds_without_gpu:
        return ()
    members = sorted(
        (name for name in library.api.ComputeCapability.__members__ if name.startswith("SM")),
        key=lambda name: int(name[2:]),
    )
    return tuple(name.lower() for name in members if int(name[2:]) >= OLDEST[precision])


def check_targets(library: Library, precision: Precision, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets in the library's order, without duplicates; all portable ones if none is named.

    Raises:
        ValueError: the library or the precision does not support one of them.
    """
    possible = portable_targets(library, precision)
    if targets and not possible:
        raise ValueError(f"{library.name} builds only for the GPU of this machine; leave targets out")
    if unknown := [target for target in targets if target.lower() not in possible]:
        raise ValueError(
            f"{library.name} {library.version} cannot build {precision} for {', '.join(unknown)}; "
            f"choose from {', '.join(possible)}"
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
    """Build a plan of an ONNX network with fixed shapes; the types are those of the ONNX.

    Args:
        library: the library that builds.
        model: the ONNX file's bytes.
        targets: from `check_targets`; used by TensorRT-RTX.
        refit: allow new weights later (`TensorRTEngine.refit`); prevents some fusions.
        progress: called with the build's progress, in the calling thread; may end the build.

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
    ):  # empty input parses without an error, to an empty network
        raise EngineError(
            f"{library.name} {library.version} cannot parse the network: {_parse_error(parser, library)}; "
            "choose the engine `onnxruntime`"
        )
    config = builder.create_builder_config()
    config.clear_flag(api.BuilderFlag.TF32)  # on by default, but fp32 must mean fp32
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
    """The parser's message about the first node that it refused."""
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


LARGEST_BATCH: Final = 1024  # at the paper's sizes, the inputs alone then take 3.8 GB

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanJob:
    """A plan to build: everything that determines it except the checkpoint. `of` checks that the parts agree.

    `gpu` is the only card that can run it; None for a library that builds for `targets`.
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
        """A job that can run on this machine; no targets means all that the library supports.

        Raises:
            EngineUnavailableError: it needs a GPU and there is none.
            ValueError: a target or the batch is impossible.
        """
        if not 1 <= batch <= LARGEST_BATCH:
            raise ValueError(f"a batch of {batch} windows cannot be built; choose from 1 to {LARGEST_BATCH}")
        checked = check_targets(library, precision, targets)
        gpu = None
        # TensorRT measures on the card while it builds; TensorRT-RTX 1.7 needs it only for refittable plans.
        if refit or not library.builds_without_gpu:
            try:
                gpu = find_gpu()
            except EngineUnavailableError as error:
                what = "refittable plans" if library.builds_without_gpu else "plans"
                raise EngineUnavailableError(
                    f"{library.name} builds {what} only on a GPU: {error}"
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
        """The path of this plan in the cache (default: the user's); any difference gives another path."""
        return (cache or user_cache(os.environ) / "plans") / f"{self.origin(checkpoint, model).key()}.plan"

    def model(self, checkpoint: LoadedCheckpoint, path: Path, cache: Path | None = None) -> bytes:
        """The network as ONNX, of the checkpoint from `path`: from the cache, or exported now.

        Raises:
            EngineError: its network cannot be exported.
        """
        return onnx_model(checkpoint, path, cache, precision=self.precision, batch=self.batch)

    def origin(self, checkpoint: LoadedCheckpoint, model: bytes) -> PlanOrigin:
        """Everything that the plan of this network depends on."""
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
        """The existing plan at `path`, if it has this origin; None if there is no file.

        Raises:
            PlanError: the file is damaged, or of another origin.
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
        """Build the plan of `model` and write it to `path`, replacing an existing file.

        Raises:
            EngineError: the library cannot parse or build it; nothing was written.
            PlanError: it cannot be written.
        """
        _log.info("building a plan with %s %s", self.library.name, self.library.version)
        data = build_plan(self.library, model, targets=self.targets, refit=self.refit, progress=progress)
        return Plan.write(path, origin, data)
