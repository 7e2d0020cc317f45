"""emi-live: six emotion intensities, live, from a face, a voice and words.

Importing this package starts nothing, opens nothing and loads no network: each public name is imported when
it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import emi_models  # noqa: F401 # before any library: it tells them to send nothing home

if TYPE_CHECKING:
    from emi_live.config import LiveConfig, load_config
    from emi_live.live import LiveEngine
    from emi_live.messages import Estimate
    from emi_live.scoring.clip import score
    from emi_live.sharing import SharedEngine, SharedModels
    from emi_models import EMOTIONS, MODALITIES
    from emi_models.errors import EmiError

__all__ = [
    "EMOTIONS",
    "MODALITIES",
    "EmiError",
    "Estimate",
    "LiveConfig",
    "LiveEngine",
    "SharedEngine",
    "SharedModels",
    "load_config",
    "score",
]

_HOME = {
    "EMOTIONS": "emi_models",
    "MODALITIES": "emi_models",
    "EmiError": "emi_models.errors",
    "Estimate": "emi_live.messages",
    "LiveConfig": "emi_live.config",
    "LiveEngine": "emi_live.live",
    "SharedEngine": "emi_live.sharing",
    "SharedModels": "emi_live.sharing",
    "load_config": "emi_live.config",
    "score": "emi_live.scoring.clip",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
