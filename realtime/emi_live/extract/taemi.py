"""The paper's bundle for extraction: a vision transformer for faces, wav2vec 2.0, and GTE for the words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from emi_live.bundle import Encoders, load_face, load_speech
from emi_live.errors import SourceError
from emi_live.extract.settings import ExtractSettings
from emi_live.extract.whole import CropStage, EarlyEnd, WholeSoundStage
from emi_live.flow import Flow
from emi_live.stages.speech import SpeechStage
from emi_live.stages.text import TextStage
from emi_models.encoders.pretrained import ModelSpec
from emi_models.encoders.transformer_text import GTE_BASE, TransformerTextEncoder
from emi_models.encoders.vit import VIT_BASE, VitEncoder
from emi_models.encoders.voice import VoiceGate
from emi_models.encoders.wav2vec import AUDEERING, SpeechSpec, Wav2vecEncoder
from emi_models.errors import EmiError
from emi_models.inputs import TAEMI_SHAPES, FusionShapes
from emi_models.vocabulary import Modality

if TYPE_CHECKING:
    from emi_live.stages import Stage
    from emi_models.store import ModelStore

__all__ = ["TaemiEncoders", "TaemiSpecs"]

AUDEERING_TERMS: Final = "features of audeering's wav2vec 2.0 are under CC BY-NC-SA 4.0"

Encoder = TypeVar("Encoder")
Spec = TypeVar("Spec", bound=ModelSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaemiSpecs:
    """Which model each modality's folder must hold."""

    vision: ModelSpec = VIT_BASE
    audio: SpeechSpec = AUDEERING
    text: ModelSpec = GTE_BASE


class TaemiEncoders:
    """ViT, wav2vec 2.0, a recogniser and GTE, one clip after the other.

    The words' stages are those of live use, but hear the last utterance end where the clip does; the others
    are made for whole clips (see `emi_live.extract.whole`).
    """

    def __init__(self, settings: ExtractSettings, store: ModelStore, specs: TaemiSpecs | None = None) -> None:
        """Load those that are wanted, from `settings.folders` or the model store."""
        specs = specs or TaemiSpecs()
        self._settings = settings
        self._store = store
        self._base = Encoders()  # what the compact bundle has too: the face's landmarks, the recogniser
        self._vision: VitEncoder | None = None
        self._audio: Wav2vecEncoder | None = None
        self._text: TransformerTextEncoder | None = None
        self.unavailable: dict[str, str] = {}
        if "vision" in settings.wanted:
            load_face(self._base, settings.live, store, None)
            self._vision = self._load("vision", VitEncoder, specs.vision)
        if "audio" in settings.wanted:
            self._audio = self._load("audio", Wav2vecEncoder, specs.audio)
        if "text" in settings.wanted:
            load_speech(self._base, settings.live, store, None)
            self._text = self._load("text", TransformerTextEncoder, specs.text)
        self.unavailable |= self._base.unavailable
        loaded: dict[Modality, VitEncoder | Wav2vecEncoder | TransformerTextEncoder | None]
        loaded = {"vision": self._vision, "audio": self._audio, "text": self._text}
        self.ids: Mapping[Modality, str] = {
            modality: encoder.encoder_id for modality, encoder in loaded.items() if encoder is not None
        }
        dims = {f"{m}_dim": 1 if encoder is None else encoder.dim for m, encoder in loaded.items()}
        self.shapes: FusionShapes = replace(TAEMI_SHAPES, **dims)
        recognizer = self._base.recognizer
        self.recognizer = recognizer.name if recognizer is not None else ""
        self.terms: Sequence[str] = [AUDEERING_TERMS] if AUDEERING.encoder_id in self.ids.values() else []
        words = [line for line in self._base.announcements if line.startswith("words:")]
        self.announcements: Sequence[str] = [*(f"{m}: {encoder}" for m, encoder in self.ids.items()), *words]

    def stages(self, flow: Flow) -> Sequence[Stage]:
        """Those for the streams that the clip has."""
        base, live, until_ns = self._base, self._settings.live, self._settings.until_ns
        stages: list[Stage] = []
        if flow.streams["video"] and base.face is not None and self._vision is not None:
            stages.append(CropStage(flow.video.reader(), base.face, self._vision, until_ns))
        if flow.streams["audio"] and self._audio is not None:
            stages.append(WholeSoundStage(EarlyEnd(flow.audio, until_ns), self._audio))
        if flow.streams["audio"] and base.recognizer is not None and self._text is not None:
            sound, words = EarlyEnd(flow.audio, until_ns), flow.bus.subscriber("transcript")
            stages.append(
                SpeechStage(
                    sound, VoiceGate(), base.recognizer, live.speech, exact=live.exact, health=flow.health
                )
            )
            stages.append(TextStage(words, self._text, live.window.length_s))
        if not stages:
            raise SourceError("there is nothing to analyse: its streams are of modalities that are left out")
        return stages

    def forget(self) -> None:
        """Drop all that was seen and heard."""
        self._base.forget()

    def close(self) -> None:
        """Release what is held."""
        self._base.close()

    def _load(self, modality: Modality, make: Callable[[Path, Spec], Encoder], spec: Spec) -> Encoder | None:
        try:
            folder = self._settings.folders.get(modality) or self._store.locate(spec.store_name)
            return make(folder, spec)
        except EmiError as error:
            self.unavailable[modality] = str(error)
            return None
