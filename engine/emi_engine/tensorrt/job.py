"""What is to be built: which library, for what, in which precision; and the plan that comes of it."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_engine.errors import EngineUnavailableError
from emi_engine.onnx_export import onnx_model
from emi_engine.tensorrt.build import build_plan, check_targets
from emi_engine.tensorrt.device import find_gpu
from emi_engine.tensorrt.plans import Plan, PlanError, PlanOrigin, manifest_path, read_manifest
from emi_models.errors import CheckpointError
from emi_models.store.places import user_cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_engine.precision import Precision
    from emi_engine.tensorrt.build import BuildProgress
    from emi_engine.tensorrt.device import Gpu
    from emi_engine.tensorrt.library import Library
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["PlanJob"]

LARGEST_BATCH: Final = 1024  # of which the inputs alone take 3.8 GB at the paper's sizes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanJob:
    """A plan to be: all that decides it but the checkpoint. `of` makes one whose parts agree.

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
