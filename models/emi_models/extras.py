"""What is not installed with the base of emi-live, and the one line that says how to install it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

from emi_models.errors import MissingPackageError

__all__ = ["EXPORT", "Extra", "lacking", "require"]

Extra = Literal["train", "taemi", "lora", "gpu", "mediapipe", "bench", "all"]

EXPORT: Final = ("torch", "onnx", "onnxscript")  # what makes the ONNX of a checkpoint


def lacking(*packages: str, extra: Extra) -> str | None:
    """What of these packages is not installed, with the command that installs it; None if all are.

    No package is imported.
    """
    absent = [name for name in packages if not _found(name)]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} not installed: pip install 'emi-live[{extra}]'"


def require(*packages: str, extra: Extra, what: str) -> None:
    """Return if these packages are installed.

    Args:
        packages: names of top-level modules.
        extra: the extra of emi-live that brings all of them.
        what: what needs them, the subject of the error's sentence.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    if reason := lacking(*packages, extra=extra):
        raise MissingPackageError(f"{what} needs more than the base of emi-live: {reason}")


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # raised by an import hook that keeps a package out
        return False
