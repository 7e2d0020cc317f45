"""The two libraries that run plans, of one Python API but for what is named here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from emi_engine.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIBRARIES", "Library", "LibraryName", "find_library"]

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
LIBRARIES: Final[tuple[LibraryName, ...]] = get_args(LibraryName)

# NVIDIA's own package is the first of each; the second is what its wheel of bindings alone brings.
MODULES: Final[Mapping[LibraryName, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
REMEDIES: Final[Mapping[LibraryName, str]] = {
    "tensorrt": "install it with `pip install tensorrt`, which fetches its libraries from NVIDIA's own index",
    "tensorrt-rtx": "install the extra `tensorrt-rtx` (Linux, x86-64)",
}
OLDEST_TENSORRT: Final = 10  # strong typing, which decides our precisions, is whole from there on

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two, imported.

    `api` is its Python module; `log` is the logger that its objects take, and keeps their complaints.
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
        """As the module gives it; plans belong to exactly one."""
        return str(self.api.__version__)

    @property
    def builds_without_gpu(self) -> bool:
        """Whether plans are built for named targets, and not for the GPU that is here."""
        return self.name == "tensorrt-rtx"

    @property
    def asks_for_strong_typing(self) -> bool:
        """Whether it takes types from the network only when told so: 11 and RTX always do."""
        return self.name == "tensorrt" and int(self.version.partition(".")[0]) < 11

    def complaint(self) -> str:
        """The first error that it has logged since the last call, on one line; `no reason given` if none."""
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
        except (ImportError, OSError) as error:  # OSError: a shared object that it needs
            reasons.append(str(error))
            continue
        if name == "tensorrt" and int(library.version.partition(".")[0]) < OLDEST_TENSORRT:
            raise EngineUnavailableError(
                f"TensorRT {library.version} is installed, {OLDEST_TENSORRT} or newer is needed; update it"
            )
        return library
    raise EngineUnavailableError(
        f"{name} cannot be imported ({reasons[0]}); {REMEDIES[name]}, or choose another engine"
    )


@cache
def _logger_of(api: Any) -> Any:
    """One logger for each module: the libraries keep the first that they are given for the whole process."""

    class Log(api.ILogger):
        """Keeps errors for the exception that follows; passes on what is worth a look."""

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
