"""Every setting of the live engine, with its unit, its limits and its only default.

A preset (TOML) and `--set section.key=value` hold only what differs; `load_config` merges them.
An unknown key is an error. `emi config` shows the settings, and docs/settings.md lists them.
"""

from emi_live.config.reading import Setting, load_config, origins, read_settings, settings_of, validated
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
    "Setting",
    "SourceConfig",
    "SpeechConfig",
    "TextConfig",
    "WindowConfig",
    "load_config",
    "origins",
    "read_settings",
    "settings_of",
    "validated",
]
