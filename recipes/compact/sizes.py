"""What the packaged checkpoint is shown of each modality, and the network's sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emi_models.inputs import COMPACT_SHAPES, FusionShapes
from emi_models.networks.taemi import TaemiConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_models import Modality

__all__ = ["CONFIG", "SHAPES", "SPANS_S"]

# TAEMI sees a set of frames without their order, so a smile that has ended looks like one that goes on for as
# long as it stays in the window; docs/decisions/0008-spans.md. Words are those of the whole window.
SPANS_S: Final[Mapping[Modality, float]] = {"vision": 0.05, "audio": 3.0}

SHAPES: Final = FusionShapes(
    vision_frames=2,  # at most 33 a second
    vision_dim=COMPACT_SHAPES.vision_dim,
    audio_frames=150,  # 50 a second
    audio_dim=COMPACT_SHAPES.audio_dim,
    text_dim=COMPACT_SHAPES.text_dim,
)

# No dropout: invented windows hardly come twice. No modality dropout: the mixture leaves modalities out
# itself, and then the target is another.
CONFIG: Final = TaemiConfig(
    shapes=SHAPES, d_model=64, heads=4, mlp_hidden=512, dropout=0.0, modality_dropout=0.0
)
