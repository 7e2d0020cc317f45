"""Plans on disk, and the two libraries that build and run them; importing this loads neither library.

A plan is the library's file; next to it is a manifest in JSON: what it was built from and for. A plan is
opaque, and runs the network it was built from. So it is used only if its manifest exists, describes exactly
this file, and matches the checkpoint, the library, the GPU, the precision and the batch in use.

`find_library` imports TensorRT or TensorRT-RTX. Their Python APIs differ only in what `Library` names.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from emi_engine.protocol import PRECISIONS, EngineError, EngineUnavailableError
from emi_models.files import atomic_write
from emi_models.inputs import FusionShapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emi_engine.cuda import Gpu
    from emi_engine.protocol import Precision

__all__ = [
    "LIBRARIES",
    "MANIFEST_FORMAT",
    "Library",
    "LibraryName",
    "Manifest",
    "Plan",
    "PlanError",
    "PlanOrigin",
    "find_library",
    "manifest_path",
    "read_manifest",
]

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: Final[tuple[LibraryName, ...]] = get_args(LibraryName)

# The first name is NVIDIA's own package; the second is that of the wheel with only the bindings.
MODULES: Final[Mapping[LibraryName, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
REMEDIES: Final[Mapping[LibraryName, str]] = {
    "tensorrt": "install it with `pip install tensorrt`, which fetches its libraries from NVIDIA's own index",
    "tensorrt-rtx": "install the extra `tensorrt-rtx` (Linux, x86-64)",
}
OLDEST_TENSORRT: Final = 10  # strong typing, which our precisions need, is complete from this version on

_log = logging.getLogger(__name__)
MANIFEST_FORMAT: Final = 1
LARGEST_MANIFEST: Final = 65536  # bytes; a real one has about 1000


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two, imported.

    `api` is its Python module; `log` is the logger for its objects, and stores their errors.
    """

    name: LibraryName
    api: Any
    log: Any

    @classmethod
    def of(cls, name: LibraryName, api: Any) -> Library:
        """The library whose Python module is `api`."""
        return cls(name, api, _logger_of(api))

    @property
    def version(self) -> str:
        """The module's version; a plan works with exactly one version."""
        return str(self.api.__version__)

    @property
    def builds_without_gpu(self) -> bool:
        """Whether plans are built for named targets, and not for the GPU of this machine."""
        return self.name == "tensorrt-rtx"

    @property
    def asks_for_strong_typing(self) -> bool:
        """Whether strong typing must be requested; 11 and RTX always have it."""
        return self.name == "tensorrt" and int(self.version.partition(".")[0]) < 11

    def complaint(self) -> str:
        """The first error that it logged since the last call, on one line; `no reason given` if none."""
        errors: list[str] = self.log.errors
        first = " ".join(errors[0].split()) if errors else "no reason given"
        errors.clear()
        return first


def find_library(name: LibraryName) -> Library:
    """The library of that name, imported.

    Raises:
        EngineUnavailableError: it is not installed, does not load here, or is too old.
    """
    reasons = []
    for module in MODULES[name]:
        try:
            library = Library.of(name, import_module(module))
        except (ImportError, OSError) as error:  # OSError: a shared object is missing
            reasons.append(str(error))
            continue
        if name == "tensorrt" and int(library.version.partition(".")[0]) < OLDEST_TENSORRT:
            raise EngineUnavailableError(
                f"TensorRT {library.version} is installed; {OLDEST_TENSORRT} or newer is needed: update it"
            )
        return library
    raise EngineUnavailableError(
        f"{name} cannot be imported ({reasons[0]}); {REMEDIES[name]}, or choose another engine"
    )


@cache
def _logger_of(api: Any) -> Any:
    """One logger for each module: the library keeps its first logger for the whole process."""

    class Log(api.ILogger):
        """Stores errors for the exception that follows; passes warnings on."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            # 0 internal error, 1 error, 2 warning, 3 info, 4 verbose, in both libraries.
            if int(severity) <= 1:
                self.errors.append(message)
            if int(severity) <= 3:
                _log.log(logging.INFO if int(severity) <= 2 else logging.DEBUG, "%s", message)

    return Log()


class PlanError(EngineError):
    """A plan is damaged, or was built from or for something else than is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOrigin:
    """Everything that a plan depends on; two plans of the same origin are interchangeable.

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
    onnx_sha256: str  # after everything that it depends on

    def key(self) -> str:
        """32 hexadecimal digits for this origin; they differ after any change in it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def differs(self, wanted: PlanOrigin) -> str | None:
        """The first field that differs from the wanted origin, with both values; None if all are equal."""
        for field in fields(PlanOrigin):
            mine, theirs = getattr(self, field.name), getattr(wanted, field.name)
            if mine != theirs:
                return f"it has {field.name} {_shown(mine)}, not {_shown(theirs)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(PlanOrigin):
    """A plan's origin, its file's hash, and when it was built (UTC, ISO 8601)."""

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
        """The reason why a plan with this manifest must not run, for use in a message; None if it may.

        A precision or batch of None matches any.
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
    """A plan's bytes, manifest and path."""

    path: Path
    manifest: Manifest
    data: bytes

    @classmethod
    def write(cls, path: Path, origin: PlanOrigin, data: bytes) -> Plan:
        """Write a new plan to `path` and its manifest next to it, each atomically.

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
            raise PlanError(f"{path} cannot be written: {error.strerror}; name another file") from error
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
                f"it is truncated, changed or another file; {_REBUILD}"
            )
        return cls(path, manifest, data)


_REBUILD: Final = "build it again with `emi compile --force`"


def manifest_path(plan: Path) -> Path:
    """The path of a plan's manifest: `x.plan` has `x.plan.json`."""
    return plan.with_name(plan.name + ".json")


def read_manifest(plan: Path) -> Manifest:
    """The manifest of the plan at that path; the plan itself is not read.

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
    """A manifest from decoded JSON; raises KeyError, TypeError or ValueError that names the problem."""
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
            raise ValueError(f"{name} is {metadata[name]!r}, not one of {', '.join(choices)}")
    if type(metadata["batch"]) is not int or metadata["batch"] < 1:
        raise ValueError(f"batch is {metadata['batch']!r}")
    if type(metadata["refittable"]) is not bool:
        raise TypeError("refittable is neither true nor false")
    targets = metadata["targets"]
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise TypeError("targets is not a list of names")
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
    """A value for an error message: only the first digits of a hash."""
    if isinstance(value, FusionShapes):
        return ", ".join(f"{name} {size}" for name, size in asdict(value).items())
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
