"""Networks, encoders, checkpoints and their training. Knows no device, thread or clock; cheap to import.

The fixed words of the product are defined here: six emotions and three modalities, in their order everywhere.
"""

from __future__ import annotations

from typing import Final, Literal

import emi_models.libraries  # noqa: F401 # before any library is imported, so that none sends anything home

__all__ = ["EMOTIONS", "MODALITIES", "Modality"]

EMOTIONS: Final = ("admiration", "amusement", "determination", "empathic_pain", "excitement", "joy")

Modality = Literal["vision", "audio", "text"]
MODALITIES: Final[tuple[Modality, ...]] = ("vision", "audio", "text")
