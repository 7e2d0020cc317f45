"""What several bundles load: the face's landmarks, and the recogniser of words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emi_models.errors import EmiError, ModelUnavailableError

if TYPE_CHECKING:
    from emi_live.bundle.encoders import Encoders
    from emi_live.config import LiveConfig
    from emi_models.speech.recognizer import Recognizer
    from emi_models.store import ModelStore, Progress

__all__ = ["in_store", "load_face", "load_speech", "whisper_model"]


def load_face(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the face encoder in, or say why there is none."""
    from emi_models.encoders.face import FaceEncoder

    try:
        path = store.locate("face-landmarker", progress)
        encoders.face = FaceEncoder(
            path, max_faces=config.face.max_faces, min_confidence=config.face.min_confidence
        )
    except EmiError as error:
        encoders.unavailable["vision"] = str(error)


def load_speech(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Put the speech recogniser in that `speech.backend` names, or say why there is none."""
    backend = config.speech.backend
    why_not_whisper = ""
    if backend in ("auto", "whisper"):
        try:
            encoders.recognizer = _whisper(config, whisper_model(config, store), store, progress)
            encoders.announcements.append(f"words: {encoders.recognizer.name}")
            _load_smaller(encoders, config, store, progress)
            return
        except EmiError as error:
            why_not_whisper = str(error)
    if backend in ("auto", "pocketsphinx"):
        from emi_models.speech.isolated import IsolatedRecognizer, isolated_command

        try:
            if (config.speech.language, config.speech.translate) != ("en", False):
                raise ModelUnavailableError("PocketSphinx, which could take its place, knows English only")
            encoders.recognizer = IsolatedRecognizer(isolated_command("pocketsphinx"))
            because = f"; not Whisper: {why_not_whisper}" if why_not_whisper else ""
            encoders.announcements.append(f"words: {encoders.recognizer.name}{because}")
            if config.speech.smaller_model is not None:
                encoders.announcements.append("words: no smaller model: PocketSphinx has but one")
            return
        except EmiError as error:
            encoders.unavailable["text"] = why_not_whisper or str(error)
            return
    encoders.unavailable["text"] = why_not_whisper


def _load_smaller(
    encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
) -> None:
    model = config.speech.smaller_model
    if model is None:
        return
    if config.exact:
        encoders.announcements.append(
            "words: no smaller model is needed: exact mode waits as long as it takes"
        )
        return
    try:
        encoders.smaller_recognizer = _whisper(config, in_store(model), store, progress)
        line = f"words: {encoders.smaller_recognizer.name} when that is too slow"
    except EmiError as error:
        line = f"words: no smaller model when that is too slow: {error}"
    encoders.announcements.append(line)


def in_store(model: str) -> str:
    """What the store calls a Whisper model that a setting names; a folder stays as it is."""
    return model if Path(model).is_dir() else f"whisper-{model}"


def whisper_model(config: LiveConfig, store: ModelStore) -> str:
    """The Whisper model that the settings ask for: a folder, or what the store calls it."""
    if config.speech.model is not None:
        return in_store(config.speech.model)
    from emi_models.store import DEFAULT_SPEECH

    english = config.speech.language == "en" and not config.speech.translate
    return store.first_here(DEFAULT_SPEECH if english else DEFAULT_SPEECH[-1:])


def _whisper(config: LiveConfig, model: str, store: ModelStore, progress: Progress | None) -> Recognizer:
    """Whisper in a process of its own: a camera's frames do not wait for it."""
    from emi_models.speech.isolated import IsolatedRecognizer, isolated_command

    folder = Path(model) if Path(model).is_dir() else store.locate(model, progress)
    speech = config.speech
    return IsolatedRecognizer(
        isolated_command(
            "whisper",
            folder=str(folder.resolve()),
            language=speech.language,
            translate=speech.translate,
            compute_type=speech.compute_type,
            threads=speech.threads,
        )
    )
