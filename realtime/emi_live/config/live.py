"""All settings of one engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import Field, model_validator

from emi_live.config.fusion import BusConfig, FusionConfig, OutputConfig, WindowConfig
from emi_live.config.media import CameraConfig, MicrophoneConfig, RingConfig, SourceConfig
from emi_live.config.section import Section
from emi_live.config.stages import AudioConfig, FaceConfig, SpeechConfig, TextConfig

__all__ = ["Bundle", "LiveConfig", "ModelsConfig"]


Bundle: TypeAlias = Literal["compact", "taemi"]

# What the other bundle has no use for.
OF_TAEMI: Final[Mapping[str, frozenset[str]]] = {
    "face": frozenset({"model", "crop_fps", "batch"}),
    "audio": frozenset({"model", "context", "hop_s", "left_context_s", "hold_back_s", "drift_every_s"}),
    "text": frozenset({"model", "allow_remote_code"}),
}


class ModelsConfig(Section):
    """Where encoder weights are."""

    directory: Path | None = None  # None = $EMI_MODEL_DIR, else the user's cache
    offline: bool = False  # never use the network


class LiveConfig(Section):
    """All settings of one engine."""

    bundle: Bundle = "compact"
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

    @model_validator(mode="after")
    def _is_of_this_bundle(self) -> LiveConfig:
        """Refuse what would have no effect."""
        for section, names in OF_TAEMI.items():
            if self.bundle != "taemi" and (given := names & getattr(self, section).model_fields_set):
                raise ValueError(
                    f"{section}.{min(given)} belongs to the bundle taemi, and {self.bundle} runs: "
                    "leave it out, or choose --config taemi"
                )
        return self

    @property
    def exact(self) -> bool:
        """Whether this run waits for every packet (`exact`) rather than answering now (`live`)."""
        return self.mode == "exact" or (self.mode == "auto" and self.source.input is not None)
