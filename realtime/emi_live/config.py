"""Every setting of the live engine, with its unit, its limits and its only default.

Presets (TOML) and `--set section.key=value` hold what differs; `load_config` merges them. An unknown key is
an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emi_engine.load import Device, EngineKind
from emi_engine.precision import Precision
from emi_live.errors import ConfigurationError

__all__ = [
    "AudioConfig",
    "BusConfig",
    "CameraConfig",
    "FaceConfig",
    "FusionConfig",
    "LiveConfig",
    "MicrophoneConfig",
    "ModelsConfig",
    "OutputConfig",
    "RingConfig",
    "SourceConfig",
    "SpeechConfig",
    "WindowConfig",
    "load_config",
    "read_settings",
    "validated",
]

Model = TypeVar("Model", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(_Section):
    """Where media comes from. With neither `camera` nor `input`, media is pushed from code."""

    camera: int | str | None = None  # index, device path or URL
    input: Path | None = None  # a media file; its sound is used, unless a microphone is named
    # "default", or a device name or index. "none" = no sound. None = the default microphone beside a camera,
    # a file's own sound beside a file.
    mic: str | None = None

    @property
    def is_pushed(self) -> bool:
        """Whether media come from code; with `mic` "none", pictures alone."""
        return self.camera is None and self.input is None and self.mic in (None, "none")


class CameraConfig(_Section):
    """How a camera is opened and watched."""

    width_px: int | None = Field(None, gt=0)  # None = the device's own choice
    height_px: int | None = Field(None, gt=0)
    fps: float | None = Field(None, gt=0)
    open_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 2.0
    frozen_after_s: Positive = 2.0  # identical frames for this long are a frozen camera
    reopen_first_s: Positive = 0.25  # back-off after a loss: first wait, doubled up to the last
    reopen_last_s: Positive = 3.0


class MicrophoneConfig(_Section):
    """How a microphone is opened and watched."""

    block_ms: float = Field(32.0, ge=5, le=200)
    silent_device_s: Positive = 1.0  # no block for this long: the device is gone, reopen it
    reopen_first_s: Positive = 0.25
    reopen_last_s: Positive = 3.0


class RingConfig(_Section):
    """How much media the rings keep."""

    audio_s: Positive = 30.0
    video_frames: int = Field(8, ge=2, le=256)


class BusConfig(_Section):
    """The ZeroMQ fabric between stages, window and sinks."""

    transport: Literal["inproc", "ipc", "tcp"] = "inproc"
    host: str = "127.0.0.1"  # tcp only
    base_port: int = Field(5570, ge=1024, le=65500)  # tcp only: one port per topic from here on
    directory: Path | None = None  # ipc only; default: a private directory under the user's runtime folder
    high_water_mark: int = Field(
        1000, ge=1, le=100_000
    )  # messages queued per edge before drop or back-pressure
    curve_public_key: str | None = None  # Z85; both keys are needed when host is not loopback
    curve_secret_key: str | None = Field(None, repr=False)

    @model_validator(mode="after")
    def _remote_needs_curve(self) -> BusConfig:
        keyed = self.curve_public_key is not None and self.curve_secret_key is not None
        if self.transport == "tcp" and self.host not in LOOPBACK and not keyed:
            raise ValueError(
                f"bus.host={self.host} is not loopback and needs CURVE keys: set bus.curve_public_key and "
                "bus.curve_secret_key (make a pair with `emi keys`)"
            )
        return self


class FaceConfig(_Section):
    """The face stage: MediaPipe Face Landmarker."""

    enabled: bool = True
    max_fps: Positive = 33.0  # frames closer together than this are skipped (and counted)
    max_faces: int = Field(2, ge=1, le=8)  # faces looked for; the largest is followed
    min_confidence: float = Field(0.5, ge=0, le=1)


class AudioConfig(_Section):
    """The audio stage: prosody at 50 Hz, and the voice gate that says whether somebody speaks."""

    enabled: bool = True
    voice_threshold: float = Field(0.5, gt=0, lt=1)  # Silero speech probability


class SpeechConfig(_Section):
    """The speech stage: voice gate, then incremental recognition of growing utterances."""

    backend: Literal["auto", "faster-whisper", "pocketsphinx", "none"] = "auto"
    model: str = "base.en"  # of the catalogue (`emi models list`), or a folder in CTranslate2 format
    smaller_model: str | None = None  # of the same kind: answers when `model` cannot keep up
    language: str = "en"
    compute_type: str = "int8"  # CTranslate2's name of a quantisation
    threads: int = Field(1, ge=1, le=64)
    voice_threshold: float = Field(0.5, gt=0, lt=1)
    partial_every_s: float = Field(0.4, ge=0.1)  # audio between two hypotheses of an utterance
    # Hypotheses in a row that must agree before a word is committed; None: 2 of Whisper, 6 of PocketSphinx.
    agreement: int | None = Field(None, ge=1, le=9)
    min_silence_s: Positive = 0.5  # silence that ends an utterance
    preroll_s: float = Field(0.3, ge=0, le=2)  # audio kept from before the voice was detected
    trim_s: float = Field(
        15.0, ge=2, le=25
    )  # audio of an utterance, from which on it is cut behind its words
    limit_s: float = Field(20.0, ge=3, le=28)  # never more than this; Whisper sees 30 s at most
    no_data_s: Positive = 1.0  # without sound: the device is mute or gone, and the utterance is over
    lag_budget_s: Positive = 3.0  # of sound that waits while a hypothesis is made; more, and something gives
    # Guards against invented words, on what Whisper says of its own segments.
    most_no_speech: float = Field(0.6, ge=0, le=1)  # probability that nothing was said
    least_log_probability: float = -1.0  # mean over tokens
    most_compression: float = Field(2.4, gt=0)  # of the text, by zlib

    @model_validator(mode="after")
    def _trims_before_it_must(self) -> SpeechConfig:
        if self.limit_s < self.trim_s + 1:
            raise ValueError(
                f"speech.limit_s={self.limit_s} leaves no time to cut between words after "
                f"speech.trim_s={self.trim_s}: make it at least 1 s larger"
            )
        return self


class WindowConfig(_Section):
    """The window that every estimate is made from."""

    length_s: float = Field(12.0, gt=0, le=12.0)
    hop_s: float = Field(0.2, ge=0.02, le=10)
    vision_dropout_s: Positive = 1.0  # without a face
    audio_dropout_s: Positive = 1.0  # without voice
    text_dropout_s: Positive = 6.0  # without a new word


class FusionConfig(_Section):
    """The fusion engine and its checkpoint. What the engines are: docs/engines.md."""

    engine: EngineKind = "auto"
    device: Device = "auto"  # auto = the CPU, but for engines that have none
    precision: Precision | None = None  # None = fp32, but for TensorRT, which has fp16 or the plan's own
    plan: Path | None = None  # of `emi compile`, for TensorRT; None = the cached one, else a new one
    checkpoint: Path | None = None  # None = the bundle's own, in the package
    # For one window, of ONNX Runtime and of numpy. Those of numpy are one setting for the whole process:
    # while an engine runs, an embedding program's own matrix products have as many.
    threads: int = Field(1, ge=1, le=64)
    contributions: bool = False  # also say, in each estimate, what each modality added


class ModelsConfig(_Section):
    """Where encoder weights are."""

    directory: Path | None = None  # None = $EMI_MODEL_DIR, else the user's cache
    offline: bool = False  # never use the network


class OutputConfig(_Section):
    """Where estimates go."""

    json_path: str | None = None  # a file, or "-" for standard output
    publish: str | None = None  # ZeroMQ address, e.g. tcp://127.0.0.1:5561
    ui: bool = True


class LiveConfig(_Section):
    """All settings of one engine."""

    bundle: Literal["compact"] = "compact"
    mode: Literal["auto", "live", "exact"] = (
        "auto"  # auto: exact for a file, live for devices and pushed media
    )
    duration_s: float | None = Field(None, gt=0)  # stop after this much capture time
    source: SourceConfig = SourceConfig()
    camera: CameraConfig = CameraConfig()
    microphone: MicrophoneConfig = MicrophoneConfig()
    rings: RingConfig = RingConfig()
    bus: BusConfig = BusConfig()
    face: FaceConfig = FaceConfig()
    audio: AudioConfig = AudioConfig()
    speech: SpeechConfig = SpeechConfig()
    window: WindowConfig = WindowConfig()
    fusion: FusionConfig = FusionConfig()
    models: ModelsConfig = ModelsConfig()
    output: OutputConfig = OutputConfig()

    @property
    def exact(self) -> bool:
        """Whether this run waits for every packet (`exact`) rather than answering now (`live`)."""
        return self.mode == "exact" or (self.mode == "auto" and self.source.input is not None)


def load_config(
    preset: str | None = None,
    settings: Iterable[str] = (),
    overrides: Mapping[str, Mapping[str, Any] | Any] | None = None,
) -> LiveConfig:
    """The configuration from a preset, then `section.key=value` settings, then the CLI's own options.

    Args:
        preset: the name of a preset in `emi_configs`, or the path of a TOML file.
        settings: `section.key=value`, the value in TOML's spelling; a bare word is a string.
        overrides: nested values that win over both.

    Raises:
        ConfigurationError: a file that cannot be read, an unknown key or a value out of range.
    """
    merged: dict[str, Any] = {} if preset is None else _read_preset(preset)
    _merge(merged, read_settings(settings))
    _merge(merged, overrides or {})
    return validated(LiveConfig, merged)


def read_settings(settings: Iterable[str], example: str = "window.hop_s=0.1") -> dict[str, Any]:
    """Nested values from `section.key=value` settings, of which a later one wins.

    Args:
        settings: the value in TOML's spelling; a bare word is a string.
        example: a setting that is right, for the message about one that is not.

    Raises:
        ConfigurationError: one is not of that form.
    """
    merged: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise ConfigurationError(
                f"--set {setting!r} is not of the form section.key=value, e.g. --set {example}"
            )
        value = _toml_value(text.strip())
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        _merge(merged, value)
    return merged


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The settings that nested values make.

    Raises:
        ConfigurationError: an unknown key, or a value out of range; the message names it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_describe(model, error)) from error


def _read_preset(preset: str) -> dict[str, Any]:
    path = Path(preset)
    if not path.exists():
        packaged = resources.files("emi_configs") / f"{preset}.toml"
        if not packaged.is_file():
            names = sorted(
                p.name[:-5] for p in resources.files("emi_configs").iterdir() if p.name.endswith(".toml")
            )
            raise ConfigurationError(f"no preset or file is called {preset!r}; presets: {', '.join(names)}")
        path = Path(str(packaged))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as TOML: {error}") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _describe(model: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = model
        for part in problem["loc"][:-1]:
            # Sections within a section, or by name within a dictionary.
            fields = getattr(section, "model_fields", None)
            section = get_args(section)[-1] if fields is None else fields[str(part)].annotation
        return f"unknown setting {key!r}; known here: {', '.join(section.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {problem['input']!r})" if problem["type"] != "value_error" else message
