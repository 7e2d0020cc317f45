"""Training data: clips of features with their labels, in any of the layouts that are read.

The readers need torch, which takes seconds to load, so each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emi_models.data.dataset import OpenOptions, open_clips
    from emi_models.errors import DataError

__all__ = ["DataError", "OpenOptions", "open_clips"]

_HOME = {
    "DataError": "emi_models.errors",
    "OpenOptions": "emi_models.data.dataset",
    "open_clips": "emi_models.data.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
