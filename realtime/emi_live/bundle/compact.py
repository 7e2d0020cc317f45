"""The compact bundle: face blendshapes, prosody, and MiniLM sentence embeddings. It runs on any CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emi_live.bundle.base import FACE_MODEL, Bundle, load_face
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from emi_live.bundle.base import Encoders
    from emi_live.config import LiveConfig
    from emi_live.flow import Flow
    from emi_live.stages import Stage
    from emi_models.inputs import FusionShapes
    from emi_models.store import ModelStore, Progress

__all__ = ["CompactBundle"]

MINILM = "all-minilm-l6-v2"


class CompactBundle(Bundle):
    """Blendshapes, prosody and sentence embeddings; its checkpoint is in the package."""

    name = "compact"
    encoder_ids = COMPACT_ENCODERS
    models = {"vision": (FACE_MODEL,), "text": (MINILM,)}  # noqa: RUF012
    checkpoint = "compact"
    has_demo = True

    @property
    def shapes(self) -> FusionShapes:
        """58 values in a frame of vision, 73 of audio, 384 of text."""
        from emi_models.inputs import COMPACT_SHAPES

        return COMPACT_SHAPES

    def load_vision(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the face encoder, or say why there are none."""
        load_face(encoders, config, store, progress)
        if encoders.face is not None:
            runs = "MediaPipe" if config.face.backend == "mediapipe" else "LiteRT"
            encoders.announcements.append(f"vision: Face Landmarker by {runs}, 52 blendshapes and head pose")

    def load_audio(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add prosody, which needs no model."""
        from emi_models.encoders.prosody import ProsodyEncoder

        encoders.prosody = ProsodyEncoder()
        encoders.announcements.append("audio: prosody at 50 Hz, voice gate Silero VAD v6")

    def load_text(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the sentence encoder, or say why there is none."""
        from emi_models.encoders.sentence import SentenceEncoder

        try:
            encoders.sentence = SentenceEncoder(store.locate(MINILM, progress))
            encoders.announcements.append("text: all-MiniLM-L6-v2, 384-d sentence embeddings (ONNX Runtime)")
        except EmiError as error:
            encoders.unavailable["text"] = str(error)

    def vision_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        """Blendshapes of every frame."""
        if encoders.face is None:
            return None
        from emi_live.stages.vision import FaceStage

        return FaceStage(flow.video.reader(), encoders.face, flow.config.face, flow.health, flow.landmarks)

    def audio_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        """Prosody at 50 Hz."""
        if encoders.prosody is None or encoders.voice_gate is None:
            return None
        from emi_live.stages.audio import ProsodyStage

        return ProsodyStage(
            flow.audio.reader(), encoders.prosody, encoders.voice_gate(), flow.config.audio, flow.health
        )
