"""What decides the features: the settings of an extraction, and the encoders that are loaded with them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from emi_live.bundle import FACE_MODEL, SECTION_OF, bundle_of, find_bundle
from emi_live.bundle.base import whisper_model
from emi_live.clock import seconds_to_ns
from emi_live.config import LiveConfig, load_config
from emi_live.config.settings import DEVICE_NAMES
from emi_live.errors import ConfigurationError, StageError
from emi_live.messages import END_OF_STREAM
from emi_live.sharing import LentRecognizer
from emi_models import MODALITIES, Modality
from emi_models.errors import EmiError, ModelIntegrityError, ModelUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_live.bundle import CropEncoder
    from emi_live.extract.recorder import SoundEncoder
    from emi_live.flow import Flow
    from emi_live.stages import Stage
    from emi_models.data.clip import Clip
    from emi_models.data.media import ClipMedia
    from emi_models.inputs import FusionShapes
    from emi_models.store import ModelStore, Progress

__all__ = [
    "ClipEncoders",
    "ExtractSettings",
    "KeptMedia",
    "dims_of",
    "fetch_models",
    "load_settings",
    "with_device",
]

VERSION: Final = 4  # of the features; one more when the same settings give other numbers
SECTIONS: Final = ("face", "audio", "speech", "text", "window", "models")  # that mean something here

# Settings that change no feature: only live use has them.
NO_FEATURE: Final = {"smaller_model", "threads", "lag_budget_s", "no_data_s", "drift_every_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """How clips are made into features."""

    live: LiveConfig = field(default_factory=LiveConfig)
    without: frozenset[Modality] = frozenset()
    seconds: float | None = 12.0  # how much of a longer clip is kept; None = all
    keep_media: bool = False  # sound and face crops, for training the encoders

    @property
    def bundle(self) -> str:
        """Which encoders."""
        return self.live.bundle

    @property
    def folders(self) -> Mapping[Modality, Path]:
        """Encoders that lie outside the model store, as settings name them."""
        named = {modality: getattr(self.live, section) for modality, section in SECTION_OF.items()}
        return {modality: config.model for modality, config in named.items() if config.model is not None}

    @property
    def wanted(self) -> tuple[Modality, ...]:
        """The modalities to extract."""
        return tuple(modality for modality in MODALITIES if modality not in self.without)

    @property
    def until_ns(self) -> int:
        """The limit in ns from the clip's start; what is newer is left out."""
        return END_OF_STREAM if self.seconds is None else seconds_to_ns(self.seconds)

    def fingerprint(self, encoders: Mapping[Modality, str], recognizer: str) -> str:
        """The same 16 letters for the same features of the same file.

        Args:
            encoders: the encoder that runs, by modality.
            recognizer: the speech recogniser that runs, "" for none.
        """
        live = self.live
        facts: dict[str, Any] = {
            "version": VERSION,
            "bundle": self.bundle,
            "encoders": dict(encoders),
            "recognizer": recognizer,
            "seconds": self.seconds,
            "window_s": live.window.length_s,
            **({"media": True} if self.keep_media else {}),
            **({} if (track := live.source.audio_track) is None else {"audio_track": str(track)}),
            **{
                name: getattr(live, name).model_dump(mode="json", exclude=NO_FEATURE)
                for name in ("face", "audio", "speech", "text")
            },
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load_settings(
    bundle: str | None = None,
    *,
    without: Sequence[str] = (),
    seconds: float = 12.0,
    preset: str | None = None,
    settings: Sequence[str] = (),
    audio_track: str | None = None,
    offline: bool = False,
    keep_media: bool = False,
    device: str | None = None,
) -> ExtractSettings:
    """The settings from the command line's options.

    Args:
        bundle: which encoders; None: the preset's, which is the default one without a preset.
        without: modalities to leave out.
        seconds: how much of a longer clip is kept; 0 = all.
        preset: as of `load_config`; what it says of sources, fusion and outputs means nothing here.
        settings: `section.key=value`, as of `load_config`.
        audio_track: which sound track of each file, a number from 1 or a language; None: the default one.
        offline: never use the network.
        keep_media: also keep the sound and the crops that the encoders were given.
        device: as of `with_device`.

    Raises:
        ConfigurationError: a setting that does not exist, cannot be, or means nothing here.
    """
    if unknown := sorted(set(without) - set(MODALITIES)):
        raise ConfigurationError(f"--without {unknown[0]}: there are {', '.join(MODALITIES)}")
    left_out = frozenset(modality for modality in MODALITIES if modality in without)
    if len(left_out) == len(MODALITIES):
        raise ConfigurationError("nothing is left to extract: leave out one --without")
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"--seconds {seconds:g} cannot be; give seconds, or 0 for whole clips")
    for setting in settings:
        section = setting.partition("=")[0].strip().partition(".")[0]
        if section not in SECTIONS:
            raise ConfigurationError(
                f"--set {setting}: {section!r} means nothing here; there are {', '.join(SECTIONS)}"
            )
    base = load_config(preset)
    bundle = bundle or base.bundle
    overrides: dict[str, Any] = {
        "bundle": bundle,
        "face": {"enabled": False} if "vision" in left_out else {},
        "audio": {"enabled": False} if "audio" in left_out else {},
        "speech": {"backend": "none"} if "text" in left_out else {},
        "models": {"offline": True} if offline else {},
        "source": {"audio_track": audio_track} if audio_track is not None else {},
    }
    live = load_config(
        preset,
        [*_defaults(bundle, base), *settings],
        {name: values for name, values in overrides.items() if values},
    )
    live = with_device(live, device)
    extract = ExtractSettings(live=live, without=left_out, seconds=seconds or None, keep_media=keep_media)
    if keep_media and (bundle != "taemi" or live.audio.context != "full"):
        raise ConfigurationError(
            "--keep-media is for encoders that can be trained, and for whole clips: use --bundle taemi, and "
            "leave audio.context out"
        )
    for modality, folder in extract.folders.items():
        if not folder.expanduser().is_dir():
            raise ConfigurationError(f"{SECTION_OF[modality]}.model={folder}: there is no such folder")
    find_bundle(bundle).check_extraction(live)
    return extract


def _defaults(bundle: str, preset: LiveConfig) -> list[str]:
    """Settings of the bundle that the preset does not make."""
    found = []
    for setting in find_bundle(bundle).extract_settings:
        section, _, name = setting.partition("=")[0].partition(".")
        if name not in getattr(preset, section).model_fields_set:
            found.append(setting)
    return found


def with_device(live: LiveConfig, device: str | None) -> LiveConfig:
    """The settings for clips, with what encoders run on.

    Args:
        live: all settings.
        device: the setting `models.device`; None: as they say, else a GPU if there is one and the bundle
            wants it.

    Raises:
        ConfigurationError: there is no such device.
    """
    if device is not None and not re.fullmatch(DEVICE_NAMES, device):
        raise ConfigurationError(f"--device {device}: choose auto, cpu, cuda or cuda:N")
    if device is None and ("device" in live.models.model_fields_set or not bundle_of(live).wants_gpu):
        return live
    return live.model_copy(update={"models": live.models.model_copy(update={"device": device or "auto"})})


class ClipEncoders:
    """A bundle's encoders and stages as they run live, for one clip after the other; `forget` comes between.

    `for_several` makes more of them, for clips at the same time.

    With the `taemi` bundle the sound of a clip is encoded all at once, as in the papers, unless
    `audio.context` says otherwise; and its last utterance ends where the clip does.

    Attributes:
        ids: the encoder that runs, by modality.
        shapes: the sizes of a 12 s window; the width of a modality without an encoder is 1.
        recognizer: the speech recogniser's name, "" if none runs.
        terms: what an encoder's licence demands of features and of what is trained on them, one line each.
        announcements: what runs, one line each.
        unavailable: why a modality has no encoder, with the remedy.
    """

    def __init__(self, settings: ExtractSettings, store: ModelStore) -> None:
        """Load those that are wanted; `unavailable` names those that the store does not have.

        Raises:
            EmiError: as `Bundle.load`.
        """
        wanted = settings.wanted
        self._settings = settings
        self._store = store
        self._kept: KeptMedia | None = None
        self._bundle = bundle_of(settings.live)
        self._encoders = self._bundle.load(
            settings.live, store, vision="vision" in wanted, audio="audio" in wanted or "text" in wanted
        )
        loaded = self._encoders
        self._sound: SoundEncoder | None = loaded.voice
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
        from emi_live.extract.recorder import EarlyEnd, WholeSoundStage

        used, until_ns = self._encoders, self._settings.until_ns
        voice = self._sound
        if self._settings.keep_media:
            self._kept = KeptMedia(voice, used.crops)
            voice = None if voice is None else self._kept.voice
            used = replace(used, crops=None if used.crops is None else self._kept.face)
        if not flow.streams["video"]:
            used = replace(used, face=None)
        if not flow.streams["audio"]:
            used = replace(used, prosody=None, voice=None, recognizer=None)
        speech = None
        if self._bundle.ends_with_clip and used.recognizer is not None:
            speech = EarlyEnd(flow.audio, until_ns)
        whole = None
        if used.voice is not None and voice is not None and self._settings.live.audio.context == "full":
            whole = WholeSoundStage(EarlyEnd(flow.audio, until_ns), voice)
        return self._bundle.stages(used, flow, speech=speech, voice=whole)

    def media(self, clip: Clip) -> ClipMedia | None:
        """What the encoders were given of the clip that was recorded last; None if it is not kept.

        Raises:
            StageError: there are fewer crops than features of them.
        """
        return None if self._kept is None else self._kept.media(clip)

    def for_several(self, count: int) -> list[Self]:
        """These encoders for so many clips at once, one for each; close them before these.

        Raises:
            EmiError: what a clip has for itself cannot be loaded once more.
        """
        from emi_live.extract.together import EncodersTogether

        together = EncodersTogether(self._encoders, self._settings.live, self._store)
        lanes: list[Self] = []
        try:
            for _ in range(count):
                lane = copy(self)
                lane._encoders, lane._sound = together.lend(), together.sound
                lanes.append(lane)
        except BaseException:
            for lane in lanes:
                lane.close()
            raise
        return lanes

    @property
    def gains_by_several(self) -> bool:
        """Whether several clips at once are expected to be faster: they share a GPU and the recogniser."""
        return self._encoders.on_gpu and self._encoders.shares_words

    def give_up(self) -> None:
        """End calls that wait for their turn at a shared recogniser, until `forget`."""
        if isinstance(self._encoders.recognizer, LentRecognizer):
            self._encoders.recognizer.give_up()

    def forget(self) -> None:
        """Forget earlier clips."""
        self._encoders.forget()

    def close(self) -> None:
        """Release what is held."""
        self._encoders.close()


class KeptMedia:
    """Passes sound and crops on to the encoders of one clip, and keeps them."""

    def __init__(self, voice: SoundEncoder | None, face: CropEncoder | None) -> None:
        self.voice = _KeptSound(voice)
        self.face = _KeptCrops(face)

    def media(self, clip: Clip) -> ClipMedia:
        """What was kept, as far as the clip has features of it."""
        from emi_models.data.media import ClipMedia
        from emi_models.encoders.wav2vec import frame_ends_ns

        count = len(clip.vision.t_ns)
        crops = np.concatenate([np.zeros((0, *self.face.shape), np.uint8), *self.face.kept])
        if len(crops) < count:
            raise StageError(f"clip {clip.id} has {count} features of {len(crops)} crops; extract it again")
        stamps = clip.audio.t_ns
        first_ns = int(stamps[0] - frame_ends_ns(1)[0]) if len(stamps) else 0
        sound = self.voice.kept if len(stamps) else np.zeros(0, np.float32)
        return ClipMedia(sound, first_ns, crops[:count], clip.vision.t_ns)


class _KeptSound:
    def __init__(self, encoder: SoundEncoder | None) -> None:
        self._encoder = encoder
        self.kept = np.zeros(0, np.float32)

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._encoder is not None  # noqa: S101  # without one there is no stage
        self.kept = samples
        return self._encoder.encode(samples)


class _KeptCrops:
    def __init__(self, encoder: CropEncoder | None) -> None:
        self._encoder = encoder
        self.side_px = 0 if encoder is None else encoder.side_px
        self.shape = (self.side_px, self.side_px, 3)
        self.kept: list[NDArray[np.uint8]] = []

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self._encoder is not None  # noqa: S101  # without one there is no stage
        self.kept.append(crops.copy())
        return self._encoder.encode(crops)


def dims_of(shapes: FusionShapes) -> dict[Modality, int]:
    """Values in one frame, by modality."""
    return {"vision": shapes.vision_dim, "audio": shapes.audio_dim, "text": shapes.text_dim}


def fetch_models(
    settings: ExtractSettings, store: ModelStore, progress: Progress | None = None
) -> tuple[ExtractSettings, str]:
    """Fetch the models that are wanted, so that several processes find them on this machine.

    Returns:
        The settings, with the recogniser that will run if `speech.backend` did not name one; and if it is not
        Whisper, the reason.

    Raises:
        ModelUnavailableError: one is not on this machine, and may not or cannot be fetched.
        ModelIntegrityError: the bytes of one are not the pinned ones.
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
    """Say what cannot be extracted without a model, and how to leave it out."""
    try:
        yield
    except (ModelUnavailableError, ModelIntegrityError) as error:
        raise type(error)(
            f"{modality} cannot be extracted: {error}; or {also}--without {modality}"
        ) from error


def _with_backend(settings: ExtractSettings, backend: str) -> ExtractSettings:
    speech = settings.live.speech.model_copy(update={"backend": backend})
    return replace(settings, live=settings.live.model_copy(update={"speech": speech}))
