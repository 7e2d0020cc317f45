"""The encoders of a bundle as extraction uses them: loaded once, used for one clip after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from emi_live.bundle import FACE_MODEL, SECTION_OF, bundle_of
from emi_live.bundle.shared import whisper_model
from emi_live.extract.recorder import EarlyEnd, WholeSoundStage
from emi_live.extract.settings import ExtractSettings
from emi_live.flow import Flow
from emi_models import MODALITIES, Modality
from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.inputs import FusionShapes

if TYPE_CHECKING:
    from emi_live.stages import Stage
    from emi_models.store import ModelStore, Progress

__all__ = ["ClipEncoders", "dims_of", "fetch_models"]


class ClipEncoders:
    """A bundle's encoders and stages as they run live, for one clip after the other; `forget` comes between.

    Of the `taemi` bundle, unless `audio.context` names another way, the sound of a clip is heard all at once,
    as the papers do; and its last utterance ends where the clip does.

    Attributes:
        ids: the encoder that runs, by modality.
        shapes: the sizes of a 12 s window; the width of a modality without an encoder is 1.
        recognizer: the speech recogniser's name, "" if none runs.
        terms: what an encoder's licence demands of features and of what is trained on them, one line each.
        announcements: what runs, one line each.
        unavailable: why a modality has no encoder, with the remedy.
    """

    def __init__(self, settings: ExtractSettings, store: ModelStore) -> None:
        """Load those that are wanted; one that the store cannot give is told of in `unavailable`.

        Raises:
            EmiError: as `Bundle.load`.
        """
        wanted = settings.wanted
        self._settings = settings
        self._bundle = bundle_of(settings.live)
        self._encoders = self._bundle.load(
            settings.live, store, vision="vision" in wanted, audio="audio" in wanted or "text" in wanted
        )
        loaded = self._encoders
        self.unavailable: dict[str, str] = {
            modality: reason for modality, reason in loaded.unavailable.items() if modality in wanted
        }
        there = [
            modality for modality in wanted if modality in loaded.ids and modality not in self.unavailable
        ]
        self.ids: dict[Modality, str] = {modality: loaded.ids[modality] for modality in there}
        dims = {
            f"{modality}_dim": loaded.dims[modality] if modality in there else 1 for modality in MODALITIES
        }
        self.shapes: FusionShapes = replace(self._bundle.shapes, **dims)
        self.recognizer: str = loaded.recognizer.name if loaded.recognizer is not None else ""
        self.terms: Sequence[str] = loaded.terms
        self.announcements: Sequence[str] = loaded.announcements

    def stages(self, flow: Flow) -> Sequence[Stage]:
        """The stages for the streams of one clip.

        Raises:
            SourceError: no stage can use them.
        """
        used, until_ns = self._encoders, self._settings.until_ns
        if not flow.streams["video"]:
            used = replace(used, face=None)
        if not flow.streams["audio"]:
            used = replace(used, prosody=None, voice=None, recognizer=None)
        speech = None
        if self._bundle.ends_with_clip and used.recognizer is not None:
            speech = EarlyEnd(flow.audio, until_ns)
        whole = None
        if used.voice is not None and self._settings.live.audio.context == "full":
            whole = WholeSoundStage(EarlyEnd(flow.audio, until_ns), used.voice)
        return self._bundle.stages(used, flow, speech=speech, voice=whole)

    def forget(self) -> None:
        """Drop all that was seen and heard."""
        self._encoders.forget()

    def close(self) -> None:
        """Release what is held."""
        self._encoders.close()


def dims_of(shapes: FusionShapes) -> dict[Modality, int]:
    """Values in one frame, by modality."""
    return {"vision": shapes.vision_dim, "audio": shapes.audio_dim, "text": shapes.text_dim}


def fetch_models(
    settings: ExtractSettings, store: ModelStore, progress: Progress | None = None
) -> tuple[ExtractSettings, str]:
    """Bring the models that are wanted to this machine, so that several processes find them there.

    Gives the settings with the recogniser that will run where `speech.backend` left it open, and, if that is
    not Whisper, why not.

    Raises:
        ModelUnavailableError: one is not here, and may not or cannot be fetched.
        ModelIntegrityError: one is here, with other bytes than those pinned.
    """
    bundle = bundle_of(settings.live)
    for modality in settings.wanted:
        folder = f"--set {SECTION_OF[modality]}.model=FOLDER, or " if bundle.takes_folder(modality) else ""
        for name in bundle.models_for(modality, settings.live):
            with _or_without(modality, "" if name == FACE_MODEL else folder):
                store.locate(name, progress)
    speech = settings.live.speech
    if speech.backend not in ("auto", "whisper"):
        return settings, ""
    try:
        with _or_without("text", "--set speech.model=FOLDER, or "):
            model = whisper_model(settings.live, store)
            if not Path(model).is_dir():
                store.locate(model, progress)
    except EmiError as error:
        if speech.backend != "auto":
            raise
        return _with_backend(settings, "pocketsphinx"), str(error.__cause__)
    return _with_backend(settings, "whisper"), ""


@contextmanager
def _or_without(modality: Modality, also: str = "") -> Iterator[None]:
    """Say what cannot be extracted for want of a model, and how to do without."""
    try:
        yield
    except (ModelUnavailableError, ModelIntegrityError) as error:
        raise type(error)(
            f"{modality} cannot be extracted: {error}; or {also}--without {modality}"
        ) from error


def _with_backend(settings: ExtractSettings, backend: str) -> ExtractSettings:
    speech = settings.live.speech.model_copy(update={"backend": backend})
    return replace(settings, live=settings.live.model_copy(update={"speech": speech}))
