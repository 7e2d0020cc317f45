"""The fixed words of the product: the six emotions and the three modalities, in their order everywhere."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["EMOTIONS", "MODALITIES", "Modality"]

EMOTIONS: Final = ("admiration", "amusement", "determination", "empathic_pain", "excitement", "joy")

Modality = Literal["vision", "audio", "text"]
MODALITIES: Final[tuple[Modality, ...]] = ("vision", "audio", "text")
