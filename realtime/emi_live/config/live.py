"""All settings of one engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from emi_live.config.fusion import BusConfig, FusionConfig, OutputConfig, WindowConfig
from emi_live.config.media import CameraConfig, MicrophoneConfig, RingConfig, SourceConfig
from emi_live.config.section import Section
from emi_live.config.stages import AudioConfig, FaceConfig, SpeechConfig

__all__ = ["LiveConfig", "ModelsConfig"]


class ModelsConfig(Section):
    """Where encoder weights are."""

    directory: Path | None = None  # None = $EMI_MODEL_DIR, else the user's cache
    offline: bool = False  # never use the network


class LiveConfig(Section):
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
