"""The encoders of a bundle as extraction uses them: loaded once, used for one clip after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from emi_live.extract.settings import ExtractSettings
from emi_models.encoders.transformer_text import GTE_BASE
from emi_models.encoders.vit import VIT_BASE
from emi_models.encoders.wav2vec import AUDEERING
from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError
from emi_models.vocabulary import Modality

if TYPE_CHECKING:
    from emi_live.flow import Flow
    from emi_live.stages import Stage
    from emi_models.inputs import FusionShapes
    from emi_models.store import ModelStore, Progress

__all__ = ["ClipEncoders", "dims_of", "fetch_models", "load_clip_encoders"]

FACE_MODEL: Final = "face-landmarker"  # for taemi too: it finds the face; a folder does not replace it
# What each modality needs of the model store, beside the speech recogniser.
MODELS: Final[Mapping[str, Mapping[Modality, tuple[str, ...]]]] = {
    "compact": {"vision": (FACE_MODEL,), "text": ("all-minilm-l6-v2",)},
    "taemi": {
        "vision": (FACE_MODEL, VIT_BASE.store_name),
        "audio": (AUDEERING.store_name,),
        "text": (GTE_BASE.store_name,),
    },
}


class ClipEncoders(Protocol):
    """One bundle's encoders. Used by one clip at a time; `forget` comes between two."""

    @property
    def ids(self) -> Mapping[Modality, str]:
        """The encoder that runs, by modality."""

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window; the width of a modality without an encoder is 1."""

    @property
    def recognizer(self) -> str:
        """The speech recogniser's name, "" if none runs."""

    @property
    def terms(self) -> Sequence[str]:
        """What an encoder's licence demands of features and of what is trained on them, one line each."""

    @property
    def announcements(self) -> Sequence[str]:
        """What runs, one line each."""

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Why a modality has no encoder, with the remedy."""

    def stages(self, flow: Flow) -> Sequence[Stage]:
        """The stages for the streams of one clip.

        Raises:
            SourceError: no stage can use them.
        """

    def forget(self) -> None:
        """Drop all that was seen and heard."""

    def close(self) -> None:
        """Release what is held."""


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
    for modality in settings.wanted:
        for name in MODELS[settings.bundle].get(modality, ()):
            if modality not in settings.folders or name == FACE_MODEL:
                folder = f"--set encoders.{modality}=FOLDER, or " if settings.bundle == "taemi" else ""
                with _or_without(modality, "" if name == FACE_MODEL else folder):
                    store.locate(name, progress)
    speech = settings.live.speech
    if speech.backend not in ("auto", "faster-whisper"):
        return settings, ""
    try:
        with _or_without("text", "--set speech.model=FOLDER, or "):
            if not Path(speech.model).is_dir():
                store.locate(f"whisper-{speech.model}", progress)
    except EmiError as error:
        if speech.backend != "auto":
            raise
        return _with_backend(settings, "pocketsphinx"), str(error.__cause__)
    return _with_backend(settings, "faster-whisper"), ""


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


def load_clip_encoders(settings: ExtractSettings, store: ModelStore) -> ClipEncoders:
    """The encoders of the bundle, loaded; one that cannot be had is told of in `unavailable`."""
    if settings.bundle == "compact":
        from emi_live.extract.compact import CompactEncoders

        return CompactEncoders(settings, store)
    from emi_live.extract.taemi import TaemiEncoders

    return TaemiEncoders(settings, store)
