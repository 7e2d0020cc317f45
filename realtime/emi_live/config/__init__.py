"""Every setting of the live engine, with its unit, its limits and its only default.

Presets (TOML) and `--set section.key=value` hold what differs; `load_config` merges them. An unknown key is
an error.
"""

from emi_live.config.reading import load_config, read_settings, validated
from emi_live.config.settings import (
    AudioConfig,
    BusConfig,
    CameraConfig,
    FaceConfig,
    FusionConfig,
    LiveConfig,
    MicrophoneConfig,
    ModelsConfig,
    OutputConfig,
    RingConfig,
    SourceConfig,
    SpeechConfig,
    TextConfig,
    WindowConfig,
)

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
    "TextConfig",
    "WindowConfig",
    "load_config",
    "read_settings",
    "validated",
]
