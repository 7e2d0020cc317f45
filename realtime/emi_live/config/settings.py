"""All settings of one engine.

What all sections of the configuration share.

Settings of sources and rings: where media comes from and how much of it is kept.

Settings of the stages: face, audio, speech, text.

Settings of what comes after the stages: bus, window, fusion engine, output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from emi_engine.load import Device, EngineKind
from emi_engine.protocol import Precision
from emi_live.addresses import has_scheme, safe_address

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
    "Positive",
    "RingConfig",
    "Section",
    "SourceConfig",
    "SpeechConfig",
    "TextConfig",
    "WindowConfig",
]

Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings: an unknown key is an error, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Section):
    """Where media comes from. With neither `camera` nor `input`, media is pushed from code."""

    camera: int | str | None = None  # index, device path or URL
    input: Path | None = None  # a media file; its sound is used, unless a microphone is named
    # "default", or a device name or index. "none" = no sound. None = the default microphone beside a camera,
    # a file's own sound beside a file.
    mic: str | None = None
    # Exact mode, pushed media: once one stream has been pushed so far beyond the other, that one is taken as
    # having nothing until then; what comes older than that is refused.
    push_lead_s: Positive = 30.0
    # Tracks of the file: number from 1 among those of their kind, or language. None = the default track, else
    # the first that can be decoded.
    audio_track: int | str | None = None
    video_track: int | str | None = None
    # A longer hole in all streams of a file at once is no pause but a lie of the time stamps, and is skipped.
    max_gap_s: Positive = 120.0

    @field_validator("mic")
    @classmethod
    def _known_words_in_any_case(cls, mic: str | None) -> str | None:
        word = None if mic is None else mic.strip().lower()
        return word if word in ("none", "default") else mic

    @field_validator("camera")
    @classmethod
    def _an_address_has_two_slashes(cls, camera: int | str | None) -> int | str | None:
        if isinstance(camera, str) and has_scheme(camera) and "://" not in camera:
            scheme, _, rest = safe_address(camera).partition(":")
            raise ValueError(
                f"--camera {scheme}:{rest} has one slash where an address has two: {scheme}:/{rest}"
            )
        return camera

    @field_validator("input", mode="before")
    @classmethod
    def _a_file_is_not_an_address(cls, given: object) -> object:
        """An address would lose a slash in `Path`, and then be looked for as a file."""
        if isinstance(given, str | Path) and has_scheme(given) and not Path(given).exists():
            scheme, _, rest = str(given).partition(":")
            address = safe_address(f"{scheme}://{rest.lstrip('/')}")
            raise ValueError(
                f"--input takes a file, and {address} is an address: watch it as it plays with --camera "
                f"{address}, or save it first with `curl -LO {address}` and give that file"
            )
        return given

    @property
    def is_pushed(self) -> bool:
        """Whether media come from code; with `mic` "none", pictures alone."""
        return self.camera is None and self.input is None and self.mic in (None, "none")


class CameraConfig(Section):
    """How a camera is opened and watched."""

    width_px: int | None = Field(None, gt=0)  # None = the device's own choice
    height_px: int | None = Field(None, gt=0)
    fps: float | None = Field(None, gt=0)
    open_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 2.0
    frozen_after_s: Positive = 2.0  # identical frames for this long are a frozen camera
    max_damaged: int = Field(30, ge=0)  # damaged pictures in a row that are passed over; one more is a loss
    reopen_first_s: Positive = 0.25  # back-off after a loss: first wait, doubled up to the last
    reopen_last_s: Positive = 3.0


class MicrophoneConfig(Section):
    """How a microphone is opened and watched."""

    block_ms: float = Field(32.0, ge=5, le=200)
    silent_device_s: Positive = 1.0  # no block for this long: the device is gone, reopen it
    reopen_first_s: Positive = 0.25
    reopen_last_s: Positive = 3.0


class RingConfig(Section):
    """How much media the rings keep."""

    audio_s: Positive = 30.0
    video_frames: int = Field(8, ge=2, le=256)


FRAME_S: Final = 0.02  # of wav2vec 2.0: its times are whole numbers of it


class FaceConfig(Section):
    """The face stage: MediaPipe Face Landmarker; with `taemi` a vision transformer's view of the face too."""

    enabled: bool = True
    max_fps: Positive = 33.0  # frames closer together than this are skipped (and counted)
    max_faces: int = Field(2, ge=1, le=8)  # faces looked for; the largest is followed
    min_confidence: float = Field(0.5, ge=0, le=1)
    # Of `taemi` alone:
    model: Path | None = None  # folder of a ViT in transformers' format; None = the model store's
    crop_fps: float = Field(6.0, gt=0, le=33)  # faces encoded a second; 33 fill the 400 of a window
    batch: int = Field(4, ge=1, le=16)  # most faces that go through the ViT at once


class AudioConfig(Section):
    """The audio stage: features at 50 Hz, and the voice gate that says whether somebody speaks."""

    enabled: bool = True
    voice_threshold: float = Field(0.5, gt=0, lt=1)  # Silero speech probability
    # Of `taemi` alone:
    model: Path | None = None  # folder of a wav2vec 2.0, HuBERT or WavLM; None = the model store's
    # What a frame is computed from: "cached" and "recompute", a bounded past, once; "full", the last 12 s,
    # anew at each hop.
    context: Literal["cached", "recompute", "full"] = "cached"
    # Of sound, between two passes of the network.
    hop_s: float = Field(0.5, ge=FRAME_S, le=6, multiple_of=FRAME_S)
    # Of the past, that frames look back on; 2 to 4 are recommended.
    left_context_s: float = Field(3.0, ge=0, le=12, multiple_of=FRAME_S)
    # Of sound to come, that a frame waits for.
    hold_back_s: float = Field(0.24, ge=0, le=2, multiple_of=FRAME_S)
    # So often, encode the last window's sound all at once, and say what that changes; None: never.
    drift_every_s: Positive | None = None

    @model_validator(mode="after")
    def _full_has_no_edges(self) -> AudioConfig:
        if self.context == "full" and (edges := {"left_context_s", "hold_back_s"} & self.model_fields_set):
            raise ValueError(
                f"audio.{min(edges)} means nothing with audio.context=full, which hears the last 12 s: "
                "leave one of them out"
            )
        return self


class TextConfig(Section):
    """The text stage. Both of `taemi` alone."""

    model: Path | None = None  # folder of a BERT-like model; None = the model store's
    allow_remote_code: bool = False  # run code that gte-en-mlm-base came with, at its pinned revision


class SpeechConfig(Section):
    """The speech stage: voice gate, then incremental recognition of growing utterances."""

    backend: Literal["auto", "faster-whisper", "pocketsphinx", "none"] = "auto"
    model: str = "base.en"  # of the catalogue (`emi models list`), or a folder in CTranslate2 format
    smaller_model: str | None = None  # of the same kind: answers when `model` cannot keep up
    language: str = "en"
    compute_type: str = "int8"  # CTranslate2's name of a quantisation
    threads: int = Field(1, ge=1, le=64)
    voice_threshold: float = Field(0.5, gt=0, lt=1)
    partial_every_s: float = Field(0.4, ge=0.1)  # audio between two hypotheses of an utterance
    # A word is committed when hypotheses in a row agree on it, or by the time that it is aligned to.
    commit: Literal["agreement", "alignment"] = "agreement"
    # Hypotheses in a row that must agree before a word is committed; None: 2 of Whisper, 6 of PocketSphinx.
    agreement: int | None = Field(None, ge=1, le=9)
    edge_s: float = Field(0.5, ge=0, le=5)  # alignment: words that end so close to the newest sound stay open
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

    @model_validator(mode="after")
    def _has_no_setting_without_effect(self) -> SpeechConfig:
        other = "edge_s" if self.commit == "agreement" else "agreement"
        if other in self.model_fields_set:
            raise ValueError(
                f"speech.{other} has no effect with speech.commit={self.commit}: leave it out, or "
                f"set speech.commit={'alignment' if other == 'edge_s' else 'agreement'}"
            )
        if self.backend == "pocketsphinx" and self.smaller_model is not None:
            raise ValueError("speech.smaller_model is a Whisper model, and speech.backend=pocketsphinx runs")
        return self


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class BusConfig(Section):
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


class WindowConfig(Section):
    """The window that every estimate is made from."""

    length_s: float = Field(12.0, gt=0, le=12.0)
    hop_s: float = Field(0.2, ge=0.02, le=10)
    vision_dropout_s: Positive = 1.0  # without a face
    audio_dropout_s: Positive = 1.0  # without voice
    text_dropout_s: Positive = 6.0  # without a new word


class FusionConfig(Section):
    """The fusion engine and its checkpoint. What the engines are: docs/engines.md."""

    engine: EngineKind = "auto"
    strict: bool = False  # an engine that is named and cannot run ends the start, in place of a fallback
    device: Device = "auto"  # auto = the CPU, but for engines that have none
    precision: Precision | None = None  # None = fp32, but for TensorRT, which has fp16 or the plan's own
    plan: Path | None = None  # of `emi compile`, for TensorRT; None = the cached one, else a new one
    checkpoint: Path | None = None  # None = the bundle's own, in the package
    # For one window, of ONNX Runtime and of numpy. Those of numpy are one setting for the whole process:
    # while an engine runs, an embedding program's own matrix products have as many.
    threads: int = Field(1, ge=1, le=64)
    contributions: bool = False  # also say, in each estimate, what each modality added


class OutputConfig(Section):
    """Where estimates go."""

    json_path: str | None = None  # a file, or "-" for standard output
    append: bool = False  # add to that file; else one that holds something is refused
    force: bool = False  # replace what a file holds, that of --picture too
    publish: str | None = None  # ZeroMQ address, e.g. tcp://127.0.0.1:5561
    ui: bool = True


class ModelsConfig(Section):
    """Where encoder weights are."""

    directory: Path | None = None  # None = $EMI_MODEL_DIR, else the user's cache
    offline: bool = False  # never use the network


class LiveConfig(Section):
    """All settings of one engine."""

    bundle: str = "compact"  # of those that `emi_live.bundle` registers
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
    text: TextConfig = TextConfig()
    window: WindowConfig = WindowConfig()
    fusion: FusionConfig = FusionConfig()
    models: ModelsConfig = ModelsConfig()
    output: OutputConfig = OutputConfig()

    @field_validator("bundle")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        from emi_live.bundle import find_bundle

        return find_bundle(name).name

    @model_validator(mode="after")
    def _is_of_this_bundle(self) -> LiveConfig:
        """Refuse settings that only another bundle has."""
        from emi_live.bundle import bundle_names, find_bundle

        mine = find_bundle(self.bundle).own_settings
        for other in bundle_names():
            for section, names in find_bundle(other).own_settings.items():
                foreign = names - mine.get(section, frozenset())
                if given := foreign & getattr(self, section).model_fields_set:
                    raise ValueError(
                        f"{section}.{min(given)} belongs to the bundle {other}, and {self.bundle} runs: "
                        f"leave it out, or set bundle={other}"
                    )
        return self

    @property
    def exact(self) -> bool:
        """Whether this run waits for every packet (`exact`) rather than answering now (`live`)."""
        return self.mode == "exact" or (self.mode == "auto" and self.source.input is not None)
