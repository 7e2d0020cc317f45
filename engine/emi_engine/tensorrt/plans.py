"""Plans on disk: the library's file, and next to it a manifest in JSON: what it was built from and for.

A plan is opaque and runs whatever it was built from, so it is used only if its manifest is there, describes
exactly this file, and fits the checkpoint, the library, the GPU, the precision and the batch in use.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from emi_engine.errors import EngineError
from emi_engine.protocol import PRECISIONS
from emi_engine.tensorrt.library import LIBRARIES
from emi_models.files import atomic_write
from emi_models.inputs import FusionShapes

if TYPE_CHECKING:
    from pathlib import Path

    from emi_engine.cuda import Gpu
    from emi_engine.protocol import Precision
    from emi_engine.tensorrt.library import LibraryName

__all__ = ["MANIFEST_FORMAT", "Manifest", "Plan", "PlanError", "PlanOrigin", "manifest_path", "read_manifest"]

MANIFEST_FORMAT: Final = 1
LARGEST_MANIFEST: Final = 65536  # bytes; a real one has about 1000


class PlanError(EngineError):
    """A plan is damaged, or was built from or for something else than what is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOrigin:
    """All that a plan depends on; two plans of one origin are interchangeable.

    `checkpoint_sha256` is of the checkpoint's file, `onnx_sha256` of the network as the library parsed it.
    `gpu` and `capability` name the card of a plan that runs on that card only; else both are empty and
    `targets` are the compute capabilities that it was built for.
    """

    library: LibraryName
    library_version: str
    precision: Precision
    batch: int
    targets: tuple[str, ...]
    gpu: str
    capability: str
    refittable: bool
    checkpoint_sha256: str
    shapes: FusionShapes
    onnx_sha256: str  # after all that it follows from

    def key(self) -> str:
        """32 hexadecimal digits that name this origin; other for any change in it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def differs(self, wanted: PlanOrigin) -> str | None:
        """The first thing in which this is not what is wanted, both named; None if all is the same."""
        for field in fields(PlanOrigin):
            mine, theirs = getattr(self, field.name), getattr(wanted, field.name)
            if mine != theirs:
                return f"it has {field.name} {_shown(mine)}, not {_shown(theirs)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(PlanOrigin):
    """A plan's origin, which file it is, and when it was built (UTC, ISO 8601)."""

    plan_sha256: str
    created: str

    def unfit(
        self,
        *,
        checkpoint_sha256: str,
        library: LibraryName,
        library_version: str,
        gpu: Gpu,
        shapes: FusionShapes,
        precision: Precision | None = None,
        batch: int | None = None,
    ) -> str | None:
        """Why a plan of this manifest must not run so, in half a sentence; None if it may.

        A precision or batch of None is any.
        """
        wanted: dict[str, object] = {
            "checkpoint_sha256": checkpoint_sha256,
            "library": library,
            "library_version": library_version,
            "shapes": shapes,
            "precision": precision or self.precision,
            "batch": batch or self.batch,
        }
        for name, value in wanted.items():
            if (mine := getattr(self, name)) != value:
                return f"it has {name} {_shown(mine)}, not {_shown(value)}"
        if self.targets:
            if gpu.target not in self.targets:
                return f"it is for {', '.join(self.targets)}, and this GPU ({gpu.name}) is {gpu.target}"
        elif (self.gpu, self.capability) != (gpu.name, gpu.target):
            return f"it is for the GPU {self.gpu} ({self.capability}), not {gpu.name} ({gpu.target})"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A plan's bytes and manifest, and the file that it lies in."""

    path: Path
    manifest: Manifest
    data: bytes

    @classmethod
    def write(cls, path: Path, origin: PlanOrigin, data: bytes) -> Plan:
        """Put a plan just built at `path` and its manifest next to it, each whole or not at all.

        Raises:
            PlanError: they cannot be written there.
        """
        metadata = {field.name: getattr(origin, field.name) for field in fields(PlanOrigin)}
        manifest = Manifest(**metadata, plan_sha256=hashlib.sha256(data).hexdigest(), created=_now())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, data)
            atomic_write(manifest_path(path), _as_json(manifest))
        except OSError as error:
            raise PlanError(f"{path} cannot be written: {error.strerror}; name another place") from error
        return cls(path, manifest, data)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan at `path`.

        Raises:
            PlanError: plan or manifest is missing or damaged, or they do not belong together.
        """
        manifest = read_manifest(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PlanError(f"the plan {path} cannot be read: {error.strerror}; {_REBUILD}") from error
        if hashlib.sha256(data).hexdigest() != manifest.plan_sha256:
            raise PlanError(
                f"the plan {path} ({len(data)} bytes) is not the one of {manifest_path(path).name}: "
                f"it is cut off, changed or another; {_REBUILD}"
            )
        return cls(path, manifest, data)


_REBUILD: Final = "build it again with `emi compile --force`"


def manifest_path(plan: Path) -> Path:
    """Where the manifest of a plan lies: `x.plan` has `x.plan.json`."""
    return plan.with_name(plan.name + ".json")


def read_manifest(plan: Path) -> Manifest:
    """The manifest of the plan at that path, which itself is not read.

    Raises:
        PlanError: there is none, or it is damaged or of another format.
    """
    path = manifest_path(plan)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise PlanError(f"the manifest {path} cannot be read: {error.strerror}; {_REBUILD}") from error
    try:
        if len(text) > LARGEST_MANIFEST:
            raise ValueError("it is too long")
        return _parse(json.loads(text))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise PlanError(f"the manifest {path} cannot be understood: {reason}; {_REBUILD}") from error


def _parse(metadata: Any) -> Manifest:
    """A manifest from decoded JSON; raises KeyError, TypeError or ValueError with what is wrong."""
    if not isinstance(metadata, dict) or metadata.get("format") != MANIFEST_FORMAT:
        version = metadata.get("format") if isinstance(metadata, dict) else None
        raise ValueError(f"format {version!r}, this emi-live reads {MANIFEST_FORMAT}")
    texts = (
        "checkpoint_sha256",
        "onnx_sha256",
        "library_version",
        "gpu",
        "capability",
        "plan_sha256",
        "created",
    )
    for name in texts:
        if not isinstance(metadata[name], str):
            raise TypeError(f"{name} is not text")
    for name, choices in (("library", LIBRARIES), ("precision", PRECISIONS)):
        if metadata[name] not in choices:
            raise ValueError(f"{name} is {metadata[name]!r}, which is none of {', '.join(choices)}")
    if type(metadata["batch"]) is not int or metadata["batch"] < 1:
        raise ValueError(f"batch is {metadata['batch']!r}")
    if type(metadata["refittable"]) is not bool:
        raise TypeError("refittable is neither true nor false")
    targets = metadata["targets"]
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise TypeError("targets is no list of names")
    if bool(targets) == bool(metadata["gpu"]):
        raise ValueError("it names both or neither of a gpu and targets")
    names = (*texts, "library", "precision", "batch", "refittable")
    return Manifest(
        **{name: metadata[name] for name in names},
        targets=tuple(targets),
        shapes=FusionShapes(**metadata["shapes"]),
    )


def _as_json(manifest: Manifest) -> bytes:
    metadata = {"format": MANIFEST_FORMAT, **asdict(manifest)}
    return (json.dumps(metadata, indent=2) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(value: object) -> str:
    """A value as an error names it: hashes by their first digits."""
    if isinstance(value, FusionShapes):
        return ", ".join(f"{name} {size}" for name, size in asdict(value).items())
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
