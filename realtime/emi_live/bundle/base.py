"""The class `Bundle`: a named set of encoders with their stages, models, settings and checkpoint.

`Encoders` holds the encoders that run. `load_face` and `load_speech` load what several bundles use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, Protocol

from emi_live.errors import ConfigurationError, SourceError
from emi_models.errors import EmiError, ModelUnavailableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emi_engine.load import Step
    from emi_live.config import LiveConfig
    from emi_live.flow import Flow
    from emi_live.rings import AudioReader
    from emi_live.stages import Stage
    from emi_models import Modality
    from emi_models.encoders.face import FaceResult
    from emi_models.encoders.prosody import ProsodyEncoder
    from emi_models.encoders.voice_activity import VoiceGate
    from emi_models.encoders.wav2vec import Wav2vecEncoder
    from emi_models.inputs import FusionShapes
    from emi_models.speech.recognizer import Recognizer
    from emi_models.store import ModelStore, Progress

__all__ = [
    "FACE_MODEL",
    "SECTION_OF",
    "Bundle",
    "CropEncoder",
    "Encoders",
    "FaceReader",
    "TextEncoder",
    "in_store",
    "load_face",
    "load_speech",
    "whisper_model",
]


class FaceReader(Protocol):
    """The interface of a face encoder for stages."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        """What one frame, uint8 RGB of shape (height, width, 3), shows."""
        ...

    def follow(self, wish: tuple[float, float] | Literal["largest"]) -> None:
        """Choose another face in the next frame: see `FaceFollower.follow`."""
        ...

    def reset(self) -> None:
        """Forget earlier frames."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class CropEncoder(Protocol):
    """The interface of a vision transformer for the crop stage."""

    @property
    def side_px(self) -> int:
        """The side of the crops that it takes."""
        ...

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (N, D) of crops (N, side, side, 3)."""
        ...


class TextEncoder(Protocol):
    """The interface of a text encoder for the text stage."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(texts), D)."""
        ...

    def encode_marked(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """States at the mark of each text (`emi_models.marked`), (len(texts), D)."""
        ...


@dataclass(slots=True)
class Encoders:
    """The encoders that run. None means not wanted or not available; then `unavailable` may say why."""

    face: FaceReader | None = None
    crops: CropEncoder | None = None  # of `taemi`: what is made of the face that `face` finds
    prosody: ProsodyEncoder | None = None  # of `compact`
    voice: Wav2vecEncoder | None = None  # of `taemi`
    voice_gate: Callable[[], VoiceGate] | None = None  # one gate per stage: a gate has state
    recognizer: Recognizer | None = None
    smaller_recognizer: Recognizer | None = None  # takes over when the other cannot keep up
    sentence: TextEncoder | None = None
    ids: dict[Modality, str] = field(default_factory=dict)  # what a checkpoint must have been trained on
    dims: dict[Modality, int] = field(default_factory=dict)  # values in a frame of those
    unavailable: dict[str, str] = field(default_factory=dict)  # modality -> why, with the remedy
    announcements: list[str] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)  # what a licence demands of features, one line each

    @property
    def shares_words(self) -> bool:
        """Whether several can use the recogniser at once, because it learns nothing of its speaker."""
        from emi_models.speech.recognizer import BatchRecognizer

        words = self.recognizer
        return words is None or (isinstance(words, BatchRecognizer) and words.batching is not None)

    @property
    def on_gpu(self) -> bool:
        """Whether an encoder of PyTorch runs on a GPU."""
        devices = [getattr(one, "device", None) for one in (self.crops, self.voice, self.sentence)]
        return any(device is not None and device.type != "cpu" for device in devices)

    def forget(self) -> None:
        """Forget earlier media, so that the next clip gives the same result as right after loading."""
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


def load_face(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Add the face encoder, or say why there is none.

    Raises:
        ConfigurationError: `face.backend` names one that is not installed.
    """
    from emi_models.encoders.face import FaceEncoder

    try:
        path = store.locate("face-landmarker", progress)
        encoders.face = FaceEncoder(
            path,
            max_faces=config.face.max_faces,
            min_confidence=config.face.min_confidence,
            backend=config.face.backend,
        )
    except EmiError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):  # a backend that the user has named
            raise ConfigurationError(str(error)) from error
        encoders.unavailable["vision"] = str(error)


def load_speech(encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None) -> None:
    """Add the speech recogniser that `speech.backend` names, or say why there is none."""
    backend = config.speech.backend
    why_not_whisper = ""
    if backend in ("auto", "whisper"):
        try:
            whisper = _whisper(config, whisper_model(config, store), store, progress)
            encoders.recognizer = whisper.recognizer
            encoders.announcements.append(f"words: {whisper.recognizer.name}{whisper.but}")
            _load_smaller(encoders, config, store, progress)
            return
        except EmiError as error:
            why_not_whisper = str(error)
    if backend in ("auto", "pocketsphinx"):
        from emi_models.speech.isolated import IsolatedRecognizer, isolated_command

        try:
            if (config.speech.language, config.speech.translate) != ("en", False):
                raise ModelUnavailableError("PocketSphinx, the alternative, knows only English")
            encoders.recognizer = IsolatedRecognizer(isolated_command("pocketsphinx"))
            because = f"; not Whisper: {why_not_whisper}" if why_not_whisper else ""
            encoders.announcements.append(f"words: {encoders.recognizer.name}{because}")
            if config.speech.smaller_model is not None:
                encoders.announcements.append("words: no smaller model: PocketSphinx has only one")
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
        encoders.smaller_recognizer = _whisper(config, in_store(model), store, progress).recognizer
        line = f"words: {encoders.smaller_recognizer.name} when that is too slow"
    except EmiError as error:
        line = f"words: no smaller model when that is too slow: {error}"
    encoders.announcements.append(line)


def in_store(model: str) -> str:
    """The name in the store of a Whisper model from a setting; a folder stays unchanged."""
    return model if Path(model).is_dir() else f"whisper-{model}"


def whisper_model(config: LiveConfig, store: ModelStore) -> str:
    """The Whisper model of the settings: a folder, or a name in the store."""
    if config.speech.model is not None:
        return in_store(config.speech.model)
    from emi_models.store import DEFAULT_SPEECH

    english = config.speech.language == "en" and not config.speech.translate
    return store.first_here(DEFAULT_SPEECH if english else DEFAULT_SPEECH[-1:])


class _Whisper(NamedTuple):
    """Whisper as it runs, and what is to be said of it."""

    recognizer: Recognizer
    but: str = ""


def _whisper(config: LiveConfig, model: str, store: ModelStore, progress: Progress | None) -> _Whisper:
    """Whisper in its own process, so that a camera's frames do not wait for it.

    With `models.device=auto`, a GPU that it cannot use is no error: then it runs on the CPU.
    """
    from emi_models.speech.isolated import IsolatedRecognizer, isolated_command

    folder = Path(model) if Path(model).is_dir() else store.locate(model, progress)
    speech = config.speech

    def load(device: str) -> Recognizer:
        return IsolatedRecognizer(
            isolated_command(
                "whisper",
                folder=str(folder.resolve()),
                language=speech.language,
                translate=speech.translate,
                compute_type=speech.compute_type,
                threads=speech.threads,
                device=device,
            )
        )

    asked = config.models.device
    if asked == "auto":
        from emi_models.device import gpus_here

        asked = asked if gpus_here() else "cpu"
    if asked != "auto":
        return _Whisper(load(asked), "" if asked == "cpu" else f", on {asked}")
    try:
        return _Whisper(load("cuda"), ", on cuda")
    except EmiError as error:
        return _Whisper(load("cpu"), f"; not on the GPU: {error}")


def _marked_span_s(config: LiveConfig) -> float | None:
    """Seconds of marked words that the checkpoint of the settings takes; None: words without a mark."""
    if config.fusion.checkpoint is None:
        return None
    from emi_models.checkpoint import read_header

    header = read_header(config.fusion.checkpoint)
    return None if header.task != "bah" else float(header.spans_s.get("text", config.window.length_s))


FACE_MODEL: Final = "face-landmarker"  # finds the face; no folder that a setting names replaces it

# The section of the settings that configures each modality's encoder.
SECTION_OF: Final[Mapping[Modality, str]] = {"vision": "face", "audio": "audio", "text": "text"}


class Bundle(ABC):
    """A set of encoders, one for each modality, and all that the program must know about it.

    A new bundle is a subclass in its own file, and one line in `emi_live.bundle`, or one `register` in a
    program. Commands import the modules of bundles, so heavy imports go into the methods that need them.

    Attributes:
        name: the value of the setting `bundle`.
        encoder_ids: by modality, the ids that a checkpoint must name. Empty if settings choose the encoders;
            then the encoders that run say it.
        own_settings: by section (face, audio, speech or text), settings that have no effect with bundles that
            do not list them too.
        extract_settings: defaults of `emi extract`, as `section.key=value`.
        models: by modality, what the encoders need of the model store.
        speech_model: the name of the speech recogniser's model in the store.
        checkpoint: the name of the checkpoint in the package; None if there is none.
        no_checkpoint: why there is none, and what to do.
        has_demo: whether the demo shows this bundle.
        ends_with_clip: whether extraction ends the last utterance where the clip ends.
        wants_gpu: whether extraction takes a GPU if there is one: most of its work is in PyTorch and Whisper.
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
    wants_gpu: ClassVar[bool] = False

    @property
    @abstractmethod
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window."""

    @abstractmethod
    def load_vision(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the encoders of vision, or say in `encoders.unavailable` why there is none."""

    @abstractmethod
    def load_audio(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the encoder of audio, or say why there is none."""

    @abstractmethod
    def load_text(
        self, encoders: Encoders, config: LiveConfig, store: ModelStore, progress: Progress | None
    ) -> None:
        """Add the encoder of text, or say why there is none."""

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
        from emi_live.stages.text import MarkedTextStage, TextStage

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
        span_s = _marked_span_s(config)
        if span_s is None:
            return [speech, TextStage(words, encoders.sentence, config.window.length_s)]
        return [speech, MarkedTextStage(words, encoders.sentence, span_s)]

    def held_back_s(self, config: LiveConfig) -> dict[str, float]:
        """Seconds of each medium, "pictures" and "sound", that wait while a stage holds the other back."""
        return {"pictures": 0.0, "sound": 0.0}

    def check_extraction(self, config: LiveConfig) -> None:  # noqa: B027 # most bundles have no such rule
        """Check that the settings make sense for extraction.

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
        lent: Encoders | None = None,
    ) -> Encoders:
        """Load the encoders for the streams that can come.

        Weights that are not on the machine are fetched into the store unless it is offline. If that fails,
        their modality is unavailable. A folder that a setting names must hold the right kind of model.

        Args:
            config: all settings.
            store: where the models are.
            vision: whether frames can come.
            audio: whether sound can come.
            progress: gets the progress of downloads.
            step: is entered around each model.
            lent: what words need, from `load_words`; None: it is loaded.

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
                self._load_sound(encoders, config, store, progress, step, lent)
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
                f"the bundle {self.name} has no checkpoint in the package, {self.no_checkpoint}"
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
        lent: Encoders | None,
    ) -> None:
        from emi_models.encoders.voice_activity import VoiceGate

        encoders.voice_gate = VoiceGate
        if config.audio.enabled:
            with step("loading the voice model"):
                self.load_audio(encoders, config, store, progress)
        else:
            encoders.unavailable["audio"] = "switched off by audio.enabled=false"
        words = lent or self.load_words(config, store, progress=progress, step=step)
        encoders.recognizer, encoders.smaller_recognizer = words.recognizer, words.smaller_recognizer
        encoders.sentence = words.sentence
        for mine, theirs in ((encoders.ids, words.ids), (encoders.dims, words.dims)):
            mine.update(theirs)  # type: ignore[arg-type] # both are of the same kind
        encoders.unavailable.update(words.unavailable)
        encoders.announcements += words.announcements
        encoders.terms += words.terms

    def load_words(
        self,
        config: LiveConfig,
        store: ModelStore,
        *,
        progress: Progress | None = None,
        step: Step | None = None,
        recognizer: Recognizer | None = None,
    ) -> Encoders:
        """Load the recogniser, unless one is given, and the sentence encoder alone; raises as `load`."""
        from emi_engine.load import no_step

        step, words = step or no_step, self._no_encoders()
        if config.speech.backend == "none":
            words.unavailable["text"] = "switched off by speech.backend=none"
            return words
        try:
            if recognizer is not None:
                words.recognizer = recognizer
                words.announcements.append(f"speech: {recognizer.name}")
            else:
                with step("loading the words model"):
                    load_speech(words, config, store, progress)
            if words.recognizer is not None:
                with step("loading the sentence model"):
                    self.load_text(words, config, store, progress)
        except BaseException:
            words.close()
            raise
        return words
