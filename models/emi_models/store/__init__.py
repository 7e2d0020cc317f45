"""Third-party weights: which ones, under what licence, and how they come to this machine unaltered."""

from __future__ import annotations

from emi_models.store.catalogue import CATALOGUE, ModelEntry, ModelFile, WheelCopy
from emi_models.store.store import ModelState, ModelStatus, ModelStore, Progress, PullEvent, address

__all__ = [
    "CATALOGUE",
    "ModelEntry",
    "ModelFile",
    "ModelState",
    "ModelStatus",
    "ModelStore",
    "Progress",
    "PullEvent",
    "WheelCopy",
    "address",
]
