"""A bundle at work: which encoder of each modality can run on this machine, and in words why another cannot.

Nothing is substituted silently: every choice, and every absence, is one line of `announcements`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emi_live.config import LiveConfig
from emi_models.errors import EmiError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emi_models.encoders.face import FaceResult
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.sentence import SentenceEncoder
    from emi_models.encoders.voice import VoiceGate
    from emi_models.speech.recognizer import Recognizer
    from emi_models.store import ModelStore, Progress

__all__ = ["Encoders", "FaceReader", "load_encoders", "load_face", "load_speech"]


class FaceReader(Protocol):
    """What stages need of a face encoder."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """What one picture, (height, width, 3), shows."""
        ...

    def reset(self) -> None:
        """Forget what was seen."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


@dataclass(slots=True)
class Encoders:
    """The encoders that run. None means not wanted or not available; then `unavailable` may say why."""

    face: FaceReader | None = None
    prosody: ProsodyEncoder | None = None
    voice_gate: Callable[[], VoiceGate] | None = None  # one gate per stage: a gate has state
    recognizer: Recognizer | None = None
    smaller_recognizer: Recognizer | None = None  # takes over when the other cannot keep up
    sentence: SentenceEncoder | None = None
    unavailable: dict[str, str] = field(default_factory=dict)  # modality -> why, with the remedy
    announcements: list[str] = field(default_factory=list)

    def forget(self) -> None:
        """Drop all that was seen and heard, so that the next clip is met as if just loaded."""
        for encoder in (self.face, self.prosody):
            if encoder is not None:
                encoder.reset()
        for recognizer in (self.recognizer, self.smaller_recognizer):
            if recognizer is not None:
                recognizer.forget()

    def close(self) -> None:
        """Release what the encoders hold."""
        for encoder in (self.face, self.recognizer, self.smaller_recognizer):
            if encoder is not None:
                encoder.close()


def load_encoders(
    config: LiveConfig,
    store: ModelStore,
    *,
    vision: bool,
    audio: bool,
    progress: Progress | None = None,
) -> Encoders:
    """Load the compact bundle's encoders for the streams that can come.

    Weights that are not on the machine are fetched into the store unless it is offline.
    """
    encoders = Encoders()
    off = encoders.unavailable
    if vision:
        if config.face.enabled:
            load_face(encoders, config, store, progress)
        else:
            off["vision"] = "switched off by face.enabled=false"
    if audio:
        from emi_models.encoders.voice import VoiceGate

        encoders.voice_gate = VoiceGate
        if config.audio.enabled:
            from emi_models.encoders.prosody import ProsodyEncoder

            encoders.prosody = ProsodyEncoder()
            encoders.announcements.append("audio: prosody at 50 Hz (torchaudio), voice gate Silero VAD v6")
        else:
            off["audio"] = "switched off by audio.enabled=false"
        if config.speech.backend == "none":
            off["text"] = "switched off by speech.backend=none"
        else:
            load_speech(encoders, config, store, progress)
            if encoders.recognizer is not None:
                _load_sentence(encoders, store, progress)
    return encoders


def load_face(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the face encoder in, or say why there is none."""
    from emi_models.encoders.face import FaceEncoder

    try:
        path = store.locate("face-landmarker", progress)
        encoders.face = FaceEncoder(
            path, max_faces=config.face.max_faces, min_confidence=config.face.min_confidence
        )
        encoders.announcements.append("vision: MediaPipe Face Landmarker, 52 blendshapes and head pose")
    except EmiError as error:
        encoders.unavailable["vision"] = str(error)


def load_speech(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the speech recogniser in that `speech.backend` names, or say why there is none."""
    backend = config.speech.backend
    why_not_whisper = ""
    if backend in ("auto", "faster-whisper"):
        try:
            encoders.recognizer = _whisper(config, config.speech.model, store, progress)
            encoders.announcements.append(f"words: {encoders.recognizer.name}")
            _load_smaller(encoders, config, store, progress)
            return
        except EmiError as error:
            why_not_whisper = str(error)
    if backend in ("auto", "pocketsphinx"):
        from emi_models.speech.isolated import IsolatedRecognizer

        try:
            encoders.recognizer = IsolatedRecognizer()
            because = f"; not faster-whisper: {why_not_whisper}" if why_not_whisper else ""
            encoders.announcements.append(f"words: {encoders.recognizer.name}{because}")
            return
        except EmiError as error:
            encoders.unavailable["text"] = why_not_whisper or str(error)
            return
    encoders.unavailable["text"] = why_not_whisper


def _load_smaller(
    encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
) -> None:
    model = config.speech.smaller_model
    if model is None or config.exact:  # what is exact waits as long as it takes
        return
    try:
        encoders.smaller_recognizer = _whisper(config, model, store, progress)
        line = f"words: {encoders.smaller_recognizer.name} when that is too slow"
    except EmiError as error:
        line = f"words: no smaller model when that is too slow: {error}"
    encoders.announcements.append(line)


def _whisper(config: LiveConfig, model: str, store: ModelStore, progress: Progress | None) -> Recognizer:
    from emi_models.speech.whisper import WhisperRecognizer

    folder = Path(model) if Path(model).is_dir() else store.locate(f"whisper-{model}", progress)
    return WhisperRecognizer(
        folder,
        language=config.speech.language,
        compute_type=config.speech.compute_type,
        threads=config.speech.threads,
    )


def _load_sentence(encoders: Encoders, store: ModelStore, progress: Progress | None) -> None:
    from emi_models.encoders.sentence import SentenceEncoder

    try:
        encoders.sentence = SentenceEncoder(store.locate("all-minilm-l6-v2", progress))
        encoders.announcements.append("text: all-MiniLM-L6-v2, 384-d sentence embeddings")
    except EmiError as error:
        encoders.unavailable["text"] = str(error)
