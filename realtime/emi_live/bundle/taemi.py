"""The paper's bundle: a vision transformer's view of the face, wav2vec 2.0, and a text model's [CLS].

Each encoder comes from the model store, or from a folder that a setting names, with a model of any size.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeVar

from emi_live.bundle.base import FACE_MODEL, Bundle, load_face
from emi_live.errors import ConfigurationError
from emi_models.errors import EmiError
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emi_engine.load import Step
    from emi_live.bundle.base import Encoders
    from emi_live.config import LiveConfig
    from emi_live.flow import Flow
    from emi_live.stages import Stage
    from emi_models import Modality
    from emi_models.encoders.text import TransformerTextEncoder
    from emi_models.encoders.vit import VitEncoder
    from emi_models.encoders.wav2vec import Wav2vecEncoder
    from emi_models.inputs import FusionShapes
    from emi_models.speech.recognizer import Recognizer
    from emi_models.store import ModelStore, Progress

    Encoder = TypeVar("Encoder", VitEncoder, Wav2vecEncoder, TransformerTextEncoder)

__all__ = ["AUDEERING_TERMS", "TaemiBundle"]

WARM_SAMPLES: Final = 8_000
CROP_GAP_S: Final = 1.0  # `stages.vision.GAP_NS`; that module is not imported for one number
AUDEERING_TERMS: Final = "features of audeering's wav2vec 2.0 are under CC BY-NC-SA 4.0: research only"

VIT: Final = "vit-base-in21k"
WAV2VEC: Final = "wav2vec2-emotion"
GTE: Final = "gte-base"


class TaemiBundle(Bundle):
    """ViT, wav2vec 2.0 and GTE. Settings can name other models of the same kinds."""

    name = "taemi"
    own_settings = {  # noqa: RUF012
        "face": frozenset({"model", "crop_fps", "batch"}),
        "audio": frozenset({"model", "context", "hop_s", "left_context_s", "hold_back_s", "drift_every_s"}),
        "text": frozenset({"model", "allow_remote_code"}),
    }
    # The largest Whisper is too slow on a CPU for two hypotheses a second: it gets each utterance once, when
    # it is over. A clip is there as a whole, so wav2vec 2.0 gets its sound as a whole.
    extract_settings = (
        "speech.backend=whisper",
        "speech.model=large-v3-turbo",
        "speech.partial_every_s=3600",
        "audio.context=full",
    )
    models = {"vision": (FACE_MODEL, VIT), "audio": (WAV2VEC,), "text": (GTE,)}  # noqa: RUF012
    speech_model = "whisper-large-v3-turbo"
    no_checkpoint = (
        "since its training data are gated: give yours with --checkpoint FILE; "
        "docs/taemi.md says how one is trained"
    )
    ends_with_clip = True
    wants_gpu = True

    @property
    def shapes(self) -> FusionShapes:
        """768 values in a frame of vision, 1027 of audio, 768 of text."""
        from emi_models.inputs import TAEMI_SHAPES

        return TAEMI_SHAPES

    def load(
        self,
        config: LiveConfig,
        store: ModelStore,
        *,
        vision: bool,
        audio: bool,
        progress: Progress | None = None,
        step: Step | None = None,
        lent: Encoders | None = None,
    ) -> Encoders:
        """As `Bundle.load`, PyTorch first.

        Raises:
            MissingPackageError: PyTorch or transformers is not installed; else as `Bundle.load`.
        """
        require("torch", "transformers", extra="taemi", what="the bundle taemi")
        with (step or nullcontext)("loading PyTorch"):
            import torch  # noqa: F401  # seconds, which the status line accounts for
        return super().load(
            config, store, vision=vision, audio=audio, progress=progress, step=step, lent=lent
        )

    def load_words(
        self,
        config: LiveConfig,
        store: ModelStore,
        *,
        progress: Progress | None = None,
        step: Step | None = None,
        recognizer: Recognizer | None = None,
    ) -> Encoders:
        """As `Bundle.load_words`; raises MissingPackageError too."""
        require("torch", "transformers", extra="taemi", what="the bundle taemi")
        return super().load_words(config, store, progress=progress, step=step, recognizer=recognizer)

    def load_vision(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the face detector and the encoder of crops, or say why there are none."""
        import numpy as np

        from emi_models.encoders.vit import VitEncoder, identify_face

        load_face(encoders, config, store, progress)
        device = config.models.device
        crops = _load(
            encoders,
            "vision",
            config.face.model,
            lambda folder: VitEncoder(folder, identify_face(folder), device=device),
            lambda: VitEncoder(store.locate(VIT, progress), device=device),
        )
        if crops is None or encoders.face is None:
            return
        encoders.crops = crops
        crops.encode(np.zeros((1, crops.side_px, crops.side_px, 3), np.uint8))  # the first one takes seconds
        _note(
            encoders,
            "vision",
            crops,
            f"{crops.dim} columns, {config.face.crop_fps:g} faces a second, found by the Face Landmarker",
        )

    def load_audio(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the speech model, or say why there is none."""
        import numpy as np

        from emi_models.encoders.wav2vec import AUDEERING, Wav2vecEncoder, identify_speech

        device = config.models.device
        voice = encoders.voice = _load(
            encoders,
            "audio",
            config.audio.model,
            lambda folder: Wav2vecEncoder(folder, identify_speech(folder), device=device),
            lambda: Wav2vecEncoder(store.locate(WAV2VEC, progress), device=device),
        )
        if voice is None:
            return
        voice.encode(np.zeros(WARM_SAMPLES, np.float32))
        audio = config.audio
        how = (
            "the last 12 s in one pass"
            if audio.context == "full"
            else f"{audio.context}: each {audio.hop_s:g} s, {audio.left_context_s:g} s back, "
            f"{audio.hold_back_s:g} s held back"
        )
        _note(encoders, "audio", voice, f"{voice.dim} columns at 50 Hz ({how}), voice gate Silero VAD v6")
        if voice.encoder_id == AUDEERING.encoder_id:
            encoders.terms.append(AUDEERING_TERMS)
            encoders.announcements.append(f"licence: {AUDEERING_TERMS}")

    def load_text(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the text model, or say why there is none."""
        from emi_models.encoders.text import TransformerTextEncoder, identify_text

        allowed, device = config.text.allow_remote_code, config.models.device
        text = encoders.sentence = _load(
            encoders,
            "text",
            config.text.model,
            lambda folder: TransformerTextEncoder(
                folder, identify_text(folder), device=device, allow_remote_code=allowed
            ),
            lambda: TransformerTextEncoder(store.locate(GTE, progress), device=device),
        )
        if text is not None:
            _note(encoders, "text", text, f"{text.dim} columns, [CLS]")

    def vision_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        """Crops of the face, a few a second."""
        if encoders.face is None or encoders.crops is None:
            return None
        from emi_live.stages.vision import CropStage

        config = flow.config
        return CropStage(
            flow.video.reader(),
            encoders.face,
            encoders.crops,
            config.face,
            flow.health,
            exact=config.exact,
            landmarks=flow.landmarks,
        )

    def audio_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        """States of wav2vec 2.0, over a bounded past or the last 12 s."""
        if encoders.voice is None or encoders.voice_gate is None:
            return None
        from emi_live.stages.audio import Wav2vecStage
        from emi_models.encoders.wav2vec_stream import SlidingWav2vec, StreamingWav2vec

        audio = flow.config.audio
        if audio.context == "full":
            model: SlidingWav2vec | StreamingWav2vec = SlidingWav2vec(encoders.voice, hop_s=audio.hop_s)
        else:
            model = StreamingWav2vec(
                encoders.voice,
                hop_s=audio.hop_s,
                left_context_s=audio.left_context_s,
                hold_back_s=audio.hold_back_s,
                strategy=audio.context,
            )
        gate, exact = encoders.voice_gate(), flow.config.exact
        return Wav2vecStage(flow.audio.reader(), model, gate, audio, flow.health, exact=exact)

    def held_back_s(self, config: LiveConfig) -> dict[str, float]:
        """Pictures wait for a hop of sound, sound waits for a batch of crops."""
        face, audio = config.face, config.audio
        return {
            "pictures": audio.hop_s + audio.hold_back_s,
            "sound": face.batch / face.crop_fps + CROP_GAP_S,
        }

    def check_extraction(self, config: LiveConfig) -> None:
        """Refuse `audio.hop_s` if a clip's sound is encoded in one pass."""
        if config.audio.context == "full" and "hop_s" in config.audio.model_fields_set:
            raise ConfigurationError(
                "audio.hop_s means nothing here with audio.context=full, since clips are encoded whole: "
                "leave it out, or choose audio.context=cached"
            )


def _load(
    encoders: Encoders,
    modality: Modality,
    named: Path | None,
    from_folder: Callable[[Path], Encoder],
    from_store: Callable[[], Encoder],
) -> Encoder | None:
    """A folder that a setting names must exist; without one, a failure of the store is noted, not raised."""
    if named is not None:
        folder = named.expanduser()
        if not folder.is_dir():
            raise ConfigurationError(f"there is no folder {folder} to load the encoder of {modality} from")
        return from_folder(folder)
    try:
        return from_store()
    except EmiError as error:
        encoders.unavailable.setdefault(modality, str(error))
        return None


def _note(
    encoders: Encoders,
    modality: Modality,
    encoder: VitEncoder | Wav2vecEncoder | TransformerTextEncoder,
    how: str,
) -> None:
    encoders.ids[modality] = encoder.encoder_id
    encoders.dims[modality] = encoder.dim
    where = "" if encoder.device.type == "cpu" else f", on {encoder.device}"
    encoders.announcements.append(f"{modality}: {encoder.encoder_id}, {how}{where}")
