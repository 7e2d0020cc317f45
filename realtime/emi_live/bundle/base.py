"""What a bundle is: a named set of encoders with their stages, models, settings and checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from emi_live.bundle.encoders import Encoders
from emi_live.bundle.shared import load_speech
from emi_live.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from emi_engine.load import Step
    from emi_live.config import LiveConfig
    from emi_live.flow import Flow
    from emi_live.rings import AudioReader
    from emi_live.stages import Stage
    from emi_models import Modality
    from emi_models.inputs import FusionShapes
    from emi_models.store import ModelStore, Progress

__all__ = ["FACE_MODEL", "SECTION_OF", "Bundle"]

FACE_MODEL: Final = "face-landmarker"  # finds the face; no folder that a setting names replaces it

# The section of the settings that configures each modality's encoder.
SECTION_OF: Final[Mapping[Modality, str]] = {"vision": "face", "audio": "audio", "text": "text"}


class Bundle(ABC):
    """A set of encoders, one for each modality, and all that the program must know of it.

    A new bundle is a subclass in its own file, and one `register` in `emi_live.bundle`. Modules of bundles
    are imported at every start, so heavy imports go into the methods that need them.

    Attributes:
        name: the value of the setting `bundle`.
        encoder_ids: by modality, the ids that a checkpoint must name. Empty if settings choose the encoders;
            then the encoders that run say it.
        own_settings: by section, settings that have no effect with bundles that do not list them too.
        extract_settings: defaults of `emi extract`, as `section.key=value`.
        models: by modality, what the encoders need of the model store.
        speech_model: the name of the speech recogniser's model in the store.
        checkpoint: the name of the checkpoint in the package; None if there is none.
        no_checkpoint: why there is none, and what to do.
        has_demo: whether the demo shows this bundle.
        ends_with_clip: whether extraction ends the last utterance where the clip ends.
    """

    name: ClassVar[str]
    encoder_ids: ClassVar[Mapping[str, str]] = MappingProxyType({})
    own_settings: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType({})
    extract_settings: ClassVar[Sequence[str]] = ()
    models: ClassVar[Mapping[Modality, tuple[str, ...]]]
    speech_model: ClassVar[str] = "whisper-base"
    checkpoint: ClassVar[str | None] = None
    no_checkpoint: ClassVar[str] = "give yours with --checkpoint FILE"
    has_demo: ClassVar[bool] = False
    ends_with_clip: ClassVar[bool] = False

    @property
    @abstractmethod
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window."""

    @abstractmethod
    def load_vision(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Put the encoders of vision in, or say in `encoders.unavailable` why there is none."""

    @abstractmethod
    def load_audio(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Put the encoder of audio in, or say why there is none."""

    @abstractmethod
    def load_text(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Put the encoder of text in, or say why there is none."""

    @abstractmethod
    def vision_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        """The stage of vision; None if its encoders are not there."""

    @abstractmethod
    def audio_stage(self, encoders: Encoders, flow: Flow) -> Stage | None:
        """The stage of audio; None if its encoder is not there."""

    def text_stages(self, encoders: Encoders, flow: Flow, sound: AudioReader | None = None) -> list[Stage]:
        """The stages that recognise speech and encode its text; empty without a recogniser."""
        config, recognizer, gate = flow.config, encoders.recognizer, encoders.voice_gate
        if recognizer is None or gate is None:
            return []
        from emi_live.stages.speech import SpeechStage
        from emi_live.stages.text import TextStage

        speech = SpeechStage(
            sound or flow.audio.reader(),
            gate(),
            recognizer,
            config.speech,
            exact=config.exact,
            health=flow.health,
            smaller=encoders.smaller_recognizer,
        )
        words = flow.bus.subscriber("transcript")
        return [speech, TextStage(words, encoders.sentence, config.window.length_s)]

    def held_back_s(self, config: LiveConfig) -> dict[str, float]:
        """Seconds of each medium, "pictures" and "sound", that wait while a stage holds the other back."""
        return {"pictures": 0.0, "sound": 0.0}

    def check_extraction(self, config: LiveConfig) -> None:  # noqa: B027 # most bundles have no such rule
        """Return if the settings make sense for extraction.

        Raises:
            ConfigurationError: one of them has no effect there.
        """

    def load(
        self,
        config: LiveConfig,
        store: ModelStore,
        *,
        vision: bool,
        audio: bool,
        progress: Progress | None = None,
        step: Step | None = None,
    ) -> Encoders:
        """Load the encoders for the streams that can come.

        Weights that are not on the machine are fetched into the store unless it is offline. If that fails,
        their modality is unavailable. A folder that a setting names must hold the right kind of model.

        Args:
            config: all settings.
            store: where the models are.
            vision: whether pictures can come.
            audio: whether sound can come.
            progress: gets the progress of downloads.
            step: is entered around each model.

        Raises:
            ConfigurationError: a folder that a setting names does not exist.
            ModelUnavailableError: a file is not in such a folder, or it needs code that may not run.
            ModelIntegrityError: it holds another kind of model, or a damaged one.
        """
        from emi_engine.load import no_step

        step = step or no_step
        encoders = self._no_encoders()
        try:
            if vision:
                if config.face.enabled:
                    with step("loading the face model"):
                        self.load_vision(encoders, config, store, progress)
                else:
                    encoders.unavailable["vision"] = "switched off by face.enabled=false"
            if audio:
                self._load_sound(encoders, config, store, progress, step)
        except BaseException:
            encoders.close()
            raise
        return encoders

    def stages(
        self,
        encoders: Encoders,
        flow: Flow,
        *,
        speech: AudioReader | None = None,
        voice: Stage | None = None,
    ) -> list[Stage]:
        """The stages for the encoders that are there.

        Args:
            encoders: those of this bundle.
            flow: where media come from and packets go.
            speech: the sound that words are recognised in, in place of the ring's own reader.
            voice: the audio stage, in place of the encoders' own.

        Raises:
            SourceError: there is no stage.
        """
        stages = [
            self.vision_stage(encoders, flow),
            voice or self.audio_stage(encoders, flow),
            *self.text_stages(encoders, flow, speech),
        ]
        found = [stage for stage in stages if stage is not None]
        if not found:
            stopped = "every stage is disabled, or its stream is missing"
            why = "; ".join(encoders.unavailable.values()) or stopped
            raise SourceError(f"there is nothing to analyse: {why}")
        return found

    def models_for(self, modality: Modality, config: LiveConfig) -> tuple[str, ...]:
        """What the encoder of a modality needs of the store, where settings name no folder in its place."""
        names = self.models.get(modality, ())
        if getattr(config, SECTION_OF[modality]).model is None:
            return names
        return tuple(name for name in names if name == FACE_MODEL)

    @property
    def model_names(self) -> frozenset[str]:
        """All models of the store that this bundle uses, the speech recogniser's included."""
        return frozenset(name for names in self.models.values() for name in names) | {self.speech_model}

    def models_in(self, store: ModelStore) -> frozenset[str]:
        """As `model_names`, with the default recogniser's model that this store has, if it has one."""
        from emi_models.store import DEFAULT_SPEECH

        if self.speech_model not in DEFAULT_SPEECH:
            return self.model_names
        return self.model_names - {self.speech_model} | {store.first_here(DEFAULT_SPEECH)}

    def takes_folder(self, modality: Modality) -> bool:
        """Whether a setting can name a folder with another encoder."""
        return "model" in self.own_settings.get(SECTION_OF[modality], ())

    def packaged_checkpoint(self) -> Path:
        """The path of the bundle's checkpoint in the package.

        Raises:
            ConfigurationError: it has none.
        """
        from emi_models.checkpoint import packaged_checkpoint

        if self.checkpoint is None:
            raise ConfigurationError(
                f"the bundle {self.name} has no checkpoint of its own, {self.no_checkpoint}"
            )
        return packaged_checkpoint(self.checkpoint)

    def _no_encoders(self) -> Encoders:
        """Encoders to fill; with fixed ids they name all, so that a foreign checkpoint is always refused."""
        from emi_models import MODALITIES

        if not self.encoder_ids:
            return Encoders()
        shapes = self.shapes
        return Encoders(
            ids={modality: self.encoder_ids[modality] for modality in MODALITIES},
            dims={"vision": shapes.vision_dim, "audio": shapes.audio_dim, "text": shapes.text_dim},
        )

    def _load_sound(
        self,
        encoders: Encoders,
        config: LiveConfig,
        store: ModelStore,
        progress: Progress | None,
        step: Step,
    ) -> None:
        from emi_models.encoders.voice_activity import VoiceGate

        encoders.voice_gate = VoiceGate
        if config.audio.enabled:
            with step("loading the voice model"):
                self.load_audio(encoders, config, store, progress)
        else:
            encoders.unavailable["audio"] = "switched off by audio.enabled=false"
        if config.speech.backend == "none":
            encoders.unavailable["text"] = "switched off by speech.backend=none"
            return
        with step("loading the words model"):
            load_speech(encoders, config, store, progress)
        if encoders.recognizer is not None:
            with step("loading the sentence model"):
                self.load_text(encoders, config, store, progress)
