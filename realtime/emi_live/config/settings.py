"""All settings of one engine: type, limits, default and description of each, grouped in sections.

The defaults here are the only ones. `docs/settings.md` is generated from this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from emi_engine.load import Device, EngineKind
from emi_engine.protocol import Precision
from emi_live.addresses import has_scheme, is_ros2, safe_address
from emi_models.speech import check_language

__all__ = [
    "DEVICE_NAMES",
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

DEVICE_NAMES: Final = r"auto|cpu|cuda(:\d+)?"  # as of `emi_models.device.choose_device`
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings: an unknown key is an error, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Section):
    """Where media comes from. With neither `camera` nor `input`, media is pushed from code."""

    camera: int | str | None = Field(
        None,
        description=(
            "Camera to open: an index, a device path, a URL or a topic (ros2:/image_raw); unset = no camera."
        ),
    )
    input: Path | None = Field(
        None, description="Media file to read; its own sound is used unless `source.mic` names a microphone."
    )
    mic: str | None = Field(
        None,
        description=(
            'Microphone: "default", a name, an index or ros2:/audio; "none" = no sound; unset = the default'
            " microphone with a camera, the file's own sound with a file, pushed sound with neither."
        ),
    )
    push_lead_s: Positive = Field(
        30.0,
        description=(
            "Seconds of capture time that one pushed stream may lead the other in exact mode; beyond "
            "that the other stream counts as empty up to there, and older data of it is refused."
        ),
    )
    audio_track: int | str | None = Field(
        None,
        description=(
            "Sound track of the file: a number from 1, or a language; unset = the default track, else"
            " the first one that can be decoded."
        ),
    )
    video_track: int | str | None = Field(
        None,
        description=(
            "Video track of the file: a number from 1, or a language; unset = the default track, "
            "else the first one that can be decoded."
        ),
    )
    max_gap_s: Positive = Field(
        120.0,
        description=(
            "Longest gap in all streams of a file, in seconds, that is kept as a pause; a longer one "
            "is a wrong time stamp and is skipped."
        ),
    )

    @field_validator("mic")
    @classmethod
    def _known_words_in_any_case(cls, mic: str | None) -> str | None:
        word = None if mic is None else mic.strip().lower()
        return word if word in ("none", "default") else mic

    @field_validator("camera")
    @classmethod
    def _an_address_has_two_slashes(cls, camera: int | str | None) -> int | str | None:
        if isinstance(camera, str) and has_scheme(camera) and "://" not in camera and not is_ros2(camera):
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

    @property
    def is_recording(self) -> bool:
        """Whether the file is a recorded session, to be replayed."""
        return self.input is not None and self.input.suffix.lower() == ".mcap"


class CameraConfig(Section):
    """How a camera is opened and watched."""

    width_px: int | None = Field(
        None,
        gt=0,
        description=(
            "Frame width to ask a camera of this machine for, in pixels; unset = the camera's choice."
        ),
    )
    height_px: int | None = Field(
        None,
        gt=0,
        description=(
            "Frame height to ask a camera of this machine for, in pixels; unset = the camera's choice."
        ),
    )
    fps: float | None = Field(
        None,
        gt=0,
        description=(
            "Frame rate to ask a camera of this machine for, in frames per second; unset = the camera's "
            "choice."
        ),
    )
    open_timeout_s: Positive = Field(
        5.0,
        description="Seconds from the start of opening the camera within which its first frame must arrive.",
    )
    read_timeout_s: Positive = Field(
        2.0,
        description=(
            "Seconds without an undamaged frame after which the camera counts as lost and is opened again; "
            "of a network stream also the longest wait for data."
        ),
    )
    frozen_after_s: Positive = Field(
        2.0,
        description=(
            "Seconds of identical frames after which the camera counts as lost and is opened again; not "
            "used for a recording."
        ),
    )
    max_damaged: int = Field(
        30, ge=0, description="Damaged frames in a row that are skipped; one more counts as a lost camera."
    )
    reopen_first_s: Positive = Field(
        0.25,
        description=(
            "Seconds before the first attempt to open a lost camera again; the wait doubles after "
            "each failure."
        ),
    )
    reopen_last_s: Positive = Field(
        3.0, description="Longest wait between two attempts to open a lost camera, in seconds."
    )


class MicrophoneConfig(Section):
    """How a microphone is opened and watched."""

    block_ms: float = Field(
        32.0, ge=5, le=200, description="Length of one block of samples from the microphone, in milliseconds."
    )
    silent_device_s: Positive = Field(
        1.0,
        description=(
            "Seconds without a block after which the microphone counts as lost and is opened again; the "
            "first block may take four times as long."
        ),
    )
    reopen_first_s: Positive = Field(
        0.25,
        description=(
            "Seconds before the first attempt to open a lost microphone again; the wait doubles after"
            " each failure."
        ),
    )
    reopen_last_s: Positive = Field(
        3.0, description="Longest wait between two attempts to open a lost microphone, in seconds."
    )


class RingConfig(Section):
    """How much media the rings keep."""

    audio_s: Positive = Field(30.0, description="Seconds of sound that are kept for the stages.")
    video_frames: int = Field(
        8, ge=2, le=256, description="Number of frames that are kept for the face stage."
    )


FRAME_S: Final = 0.02  # of wav2vec 2.0: its times are whole numbers of it


class FaceConfig(Section):
    """The face stage: Face Landmarker; with `taemi` a vision transformer's view of the face too."""

    enabled: bool = Field(True, description="Run the face stage; false = no vision input.")
    backend: Literal["litert", "mediapipe"] = Field(
        "litert",
        description=(
            "What runs the Face Landmarker: litert = its networks by LiteRT; mediapipe = MediaPipe, for "
            "comparison (extra mediapipe)."
        ),
    )
    max_fps: Positive = Field(
        33.0,
        description=(
            "Highest rate of processed frames, in frames per second; frames that come faster are "
            "skipped and counted."
        ),
    )
    max_faces: int = Field(
        2, ge=1, le=8, description="Number of faces to look for; the largest is chosen and kept."
    )
    min_confidence: float = Field(
        0.5, ge=0, le=1, description="Lowest confidence at which a face counts as detected."
    )
    model: Path | None = Field(
        None,
        description=(
            "Folder of a ViT in the format of transformers; unset = the one of the model store; taemi only."
        ),
    )
    crop_fps: float = Field(
        6.0,
        gt=0,
        le=33,
        description=(
            "Faces that the ViT encodes in one second; 33 fill the 400 positions of a 12 s window; "
            "taemi only."
        ),
    )
    batch: int = Field(
        4, ge=1, le=16, description="Largest number of faces that go through the ViT at once; taemi only."
    )


class AudioConfig(Section):
    """The audio stage: features at 50 Hz, and the voice gate that says whether somebody speaks."""

    enabled: bool = Field(True, description="Run the audio stage; false = no audio input.")
    voice_threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description=(
            "Speech probability of Silero VAD at which a voice counts as present for the audio features."
        ),
    )
    model: Path | None = Field(
        None,
        description=(
            "Folder of a wav2vec 2.0, HuBERT or WavLM model; unset = the one of the model store; taemi only."
        ),
    )
    context: Literal["cached", "recompute", "full"] = Field(
        "cached",
        description=(
            "Sound that a feature frame is computed from: cached and recompute use a bounded past, "
            "computed once; full computes the last 12 s again at each hop; taemi only."
        ),
    )
    hop_s: float = Field(
        0.5,
        ge=FRAME_S,
        le=6,
        multiple_of=FRAME_S,
        description="Seconds of sound between two passes of the audio encoder; taemi only.",
    )
    left_context_s: float = Field(
        3.0,
        ge=0,
        le=12,
        multiple_of=FRAME_S,
        description="Seconds of past sound that a frame sees; 2 to 4 are recommended; taemi only.",
    )
    hold_back_s: float = Field(
        0.24,
        ge=0,
        le=2,
        multiple_of=FRAME_S,
        description="Seconds of future sound that a frame waits for; this adds to the latency; taemi only.",
    )
    drift_every_s: Positive | None = Field(
        None,
        description=(
            "Seconds between two checks that encode the last window at once and report the "
            "difference; unset = no checks; taemi only."
        ),
    )

    @model_validator(mode="after")
    def _full_has_no_edges(self) -> AudioConfig:
        if self.context == "full" and (edges := {"left_context_s", "hold_back_s"} & self.model_fields_set):
            raise ValueError(
                f"audio.{min(edges)} means nothing with audio.context=full, which encodes the last 12 s: "
                "leave one of them out"
            )
        return self


class TextConfig(Section):
    """The text stage. Both of `taemi` alone."""

    model: Path | None = Field(
        None, description="Folder of a BERT-like model; unset = the one of the model store; taemi only."
    )
    allow_remote_code: bool = Field(
        False,
        description="Run the Python code of gte-en-mlm-base, at its pinned revision; taemi only.",
    )


class SpeechConfig(Section):
    """The speech stage: voice gate, then incremental recognition of growing utterances."""

    backend: Literal["auto", "whisper", "pocketsphinx", "none"] = Field(
        "auto",
        description=(
            "Speech recogniser; auto = Whisper if it can be used, else PocketSphinx; none = no text."
        ),
    )
    model: str | None = Field(
        None,
        description=(
            "Whisper model: a name of `emi models list` without `whisper-`, or a folder in CTranslate2 "
            "format; unset = base, or base.en if that is in the model store and suits the language."
        ),
    )
    smaller_model: str | None = Field(
        None,
        description="Whisper model that takes over when `speech.model` is too slow; unset = none takes over.",
    )
    language: str = Field(
        "en",
        description=(
            "Language of the speech, as Whisper's code; auto = detected for each utterance; with another "
            "one than en also set speech.translate=true, because the text encoder knows only English."
        ),
    )
    translate: bool = Field(
        False,
        description="Whisper writes English whatever the language is, so that the text encoder knows it.",
    )
    compute_type: str = Field(
        "int8", description="Number format of Whisper's weights, by CTranslate2's name."
    )
    threads: int = Field(1, ge=1, le=64, description="CPU threads of the speech recogniser.")
    voice_threshold: float = Field(
        0.5, gt=0, lt=1, description="Speech probability of Silero VAD at which an utterance begins."
    )
    partial_every_s: float = Field(
        0.5, ge=0.1, description="Seconds of sound between two hypotheses of one utterance."
    )
    commit: Literal["agreement", "alignment"] = Field(
        "agreement",
        description=(
            "When a word is committed: agreement = several hypotheses contain it; alignment "
            "= its aligned end time is old enough."
        ),
    )
    agreement: int | None = Field(
        None,
        ge=1,
        le=9,
        description=(
            "Hypotheses that must agree before a word is committed, 2 of the last 3, more in a row; "
            "unset = 2 for Whisper, 5 for PocketSphinx."
        ),
    )
    edge_s: float = Field(
        0.5,
        ge=0,
        le=5,
        description=(
            "With `speech.commit` = alignment, words that end within this many seconds of the newest "
            "sound stay partial."
        ),
    )
    min_silence_s: Positive = Field(0.5, description="Seconds of silence that end an utterance.")
    preroll_s: float = Field(
        0.3,
        ge=0,
        le=2,
        description="Seconds of sound from before the voice was detected that belong to the utterance.",
    )
    trim_s: float = Field(
        8.0,
        ge=2,
        le=25,
        description="Length of an utterance in seconds at which its sound is cut after committed words.",
    )
    limit_s: float = Field(
        20.0,
        ge=3,
        le=28,
        description=(
            "Longest utterance in seconds; at this length it is cut in any case, because Whisper sees"
            " 30 s at most."
        ),
    )
    no_data_s: Positive = Field(1.0, description="Seconds without audio data after which the utterance ends.")
    lag_budget_s: Positive = Field(
        3.0,
        description=(
            "Seconds of queued sound above which the recogniser is too slow: a smaller model takes "
            "over, or the backlog is skipped."
        ),
    )
    most_no_speech: float = Field(
        0.6, ge=0, le=1, description="Whisper segments with a higher no-speech probability are dropped."
    )
    least_log_probability: float = Field(
        -1.0, description="Whisper segments with a lower mean log probability per token are dropped."
    )
    most_compression: float = Field(
        2.4,
        gt=0,
        description=(
            "Whisper segments whose text has a higher zlib compression ratio are dropped as repetitions."
        ),
    )

    @field_validator("language")
    @classmethod
    def _is_a_language(cls, code: str) -> str:
        try:
            return check_language(code)
        except ValueError as error:
            raise ValueError(f"speech.language: {error}") from error

    @model_validator(mode="after")
    def _pocketsphinx_knows_english(self) -> SpeechConfig:
        if self.backend == "pocketsphinx" and (self.language != "en" or self.translate):
            raise ValueError(
                "PocketSphinx knows English only: leave speech.language and speech.translate as they are by "
                "default, or set speech.backend=whisper"
            )
        return self

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

    transport: Literal["inproc", "ipc", "tcp"] = Field(
        "inproc",
        description=(
            "ZeroMQ transport between the stages: inproc = inside the process, ipc = Unix sockets, "
            "tcp = network."
        ),
    )
    host: str = Field("127.0.0.1", description="Address that the bus binds to; tcp only.")
    base_port: int = Field(
        5570,
        ge=1024,
        le=65500,
        description="First TCP port; each topic takes one port from here on; tcp only.",
    )
    directory: Path | None = Field(
        None,
        description=(
            "Folder of the sockets; ipc only; unset = a private folder in the user's runtime directory."
        ),
    )
    high_water_mark: int = Field(
        1000,
        ge=1,
        le=100_000,
        description=(
            "Packets that may wait at each end of an edge of the bus, so twice as many per edge (with `ipc` "
            "and `tcp`, also those in the system's socket buffers), before new ones are dropped (live) or "
            "the publisher waits (exact)."
        ),
    )
    curve_public_key: str | None = Field(
        None,
        description=(
            "Public CURVE key in Z85; needed with the secret key when `bus.host` is not loopback "
            "(`emi keys` makes a pair)."
        ),
    )
    curve_secret_key: str | None = Field(
        None, repr=False, description="Secret CURVE key in Z85; it is never printed."
    )

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

    length_s: float = Field(
        12.0, gt=0, le=12.0, description="Length of the window that each estimate is made from, in seconds."
    )
    hop_s: float = Field(0.2, ge=0.02, le=10, description="Seconds of capture time between two estimates.")
    vision_dropout_s: Positive = Field(
        1.0, description="Seconds without a face after which vision counts as missing."
    )
    audio_dropout_s: Positive = Field(
        1.0, description="Seconds without a voice after which audio counts as missing."
    )
    text_dropout_s: Positive = Field(
        6.0, description="Seconds without a new word after which text counts as missing."
    )
    baseline: Literal["off", "running", "calibrate"] = Field(
        "off",
        description=(
            "A neutral of one's own, to which features are then relative: off; running = learned all the"
            " time; calibrate = learned in five seconds of rest at the start."
        ),
    )


class FusionConfig(Section):
    """The fusion engine and its checkpoint. What the engines are: docs/engines.md."""

    engine: EngineKind = Field(
        "auto", description="Engine that runs the fusion network; see [engines](engines.md)."
    )
    strict: bool = Field(
        False,
        description=(
            "Stop at the start if the engine named in `fusion.engine` cannot run; false = use the "
            "next engine."
        ),
    )
    device: Device = Field(
        "auto", description="Device of the engine; auto = the CPU, except for engines that need a GPU."
    )
    precision: Precision | None = Field(
        None,
        description="Number format of the engine; unset = fp32, but for TensorRT fp16 or that of the plan.",
    )
    plan: Path | None = Field(
        None,
        description="TensorRT plan made by `emi compile`; unset = the cached plan, else a new one is built.",
    )
    checkpoint: Path | None = Field(
        None, description="Checkpoint of the fusion network; unset = the packaged one of the bundle."
    )
    threads: int = Field(
        1,
        ge=1,
        le=64,
        description=(
            "CPU threads for one window with ONNX Runtime or numpy; for numpy the number holds for "
            "the whole process while the engine runs."
        ),
    )
    smooth_s: float = Field(
        0.3,
        ge=0,
        le=10,
        description=(
            "Time constant of the smoothing of live intensities, in seconds; 0 = none; exact mode never "
            "smooths."
        ),
    )
    contributions: bool = Field(False, description="Add to each estimate how much each modality contributed.")


class OutputConfig(Section):
    """Where estimates go."""

    json_path: str | None = Field(
        None,
        description='File for one JSON object per estimate; "-" = standard output; unset = none is written.',
    )
    append: bool = Field(
        False, description="Add to the JSON file; false = a file that is not empty is refused."
    )
    force: bool = Field(False, description="Replace an existing JSON file, recording and picture.")
    publish: str | None = Field(
        None,
        description="ZeroMQ address to publish estimates at, such as tcp://127.0.0.1:5561; unset = none.",
    )
    web: str | None = Field(
        None, description="Port or address of this machine for a page with the own picture; unset = no page."
    )
    to: tuple[str, ...] = Field(
        (),
        description='Peers that get estimates, as `["lsl:", "osc:127.0.0.1:9000"]`: [connect](connect.md).',
    )
    lan: bool = Field(
        False, description="Let peers on other machines read us, in clear text; false = this machine only."
    )
    marks: tuple[str, ...] = Field(
        (),
        description='Where markers come from, as `["lsl:Stimuli", "osc:9001"]`; see [connect](connect.md).',
    )
    metrics: str | None = Field(
        None, description="Port or address where Prometheus reads figures of the run; unset = none."
    )
    record: Path | None = Field(
        None,
        description="MCAP file for features, words and estimates, to replay; unset = none is written.",
    )
    record_media: bool = Field(
        False, description="Add picture (JPEG) and sound to the recording; replays do not read them."
    )
    ui: bool = Field(True, description="Show the terminal view.")


class ModelsConfig(Section):
    """Where encoder weights are, and what encoders run on."""

    directory: Path | None = Field(
        None, description="Folder of the encoder weights; unset = $EMI_MODEL_DIR, else the user's cache."
    )
    offline: bool = Field(False, description="Never use the network; a missing model is then an error.")
    device: str = Field(
        "cpu",
        pattern=f"^({DEVICE_NAMES})$",
        description=(
            "Processor of Whisper and of the encoders of PyTorch: cpu, cuda or cuda:N; auto = a GPU if there"
            " is one."
        ),
    )


# The sections in which a bundle can add settings.
BUNDLE_SECTIONS: Final = ("face", "audio", "speech", "text")


class LiveConfig(Section):
    """All settings of one engine."""

    bundle: str = Field(
        "compact", description="Set of encoders and fusion network; the preset of the same name selects it."
    )
    mode: Literal["auto", "live", "exact"] = Field(
        "auto",
        description=(
            "live = estimate at once and drop what is late; exact = wait for every packet; auto = exact for"
            " a file, live for devices and pushed media."
        ),
    )
    duration_s: float | None = Field(
        None, gt=0, description="Seconds of capture time after which the run stops; unset = no limit."
    )
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
        if not any(getattr(self, section).model_fields_set for section in BUNDLE_SECTIONS):
            return self
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
