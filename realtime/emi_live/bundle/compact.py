"""The compact bundle's own encoders: blendshapes, prosody, MiniLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emi_live.bundle.encoders import Encoders
from emi_live.bundle.shared import load_face
from emi_live.config import LiveConfig
from emi_models import MODALITIES, Modality
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.errors import EmiError
from emi_models.inputs import COMPACT_SHAPES

if TYPE_CHECKING:
    from emi_models.store import ModelStore, Progress

__all__ = ["COMPACT_DIMS", "COMPACT_IDS", "load_text", "load_vision", "load_voice"]

COMPACT_IDS: Final[dict[Modality, str]] = {modality: COMPACT_ENCODERS[modality] for modality in MODALITIES}
COMPACT_DIMS: Final[dict[Modality, int]] = {
    "vision": COMPACT_SHAPES.vision_dim,
    "audio": COMPACT_SHAPES.audio_dim,
    "text": COMPACT_SHAPES.text_dim,
}


def load_vision(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the face's blendshapes in, or say why there are none."""
    load_face(encoders, config, store, progress)
    if encoders.face is not None:
        encoders.announcements.append("vision: MediaPipe Face Landmarker, 52 blendshapes and head pose")


def load_voice(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put prosody in, which needs no model."""
    from emi_models.encoders.prosody import ProsodyEncoder

    encoders.prosody = ProsodyEncoder()
    encoders.announcements.append("audio: prosody at 50 Hz (torchaudio), voice gate Silero VAD v6")


def load_text(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the sentence encoder in, or say why there is none."""
    from emi_models.encoders.text import SentenceEncoder

    try:
        encoders.sentence = SentenceEncoder(store.locate("all-minilm-l6-v2", progress))
        encoders.announcements.append("text: all-MiniLM-L6-v2, 384-d sentence embeddings")
    except EmiError as error:
        encoders.unavailable["text"] = str(error)
