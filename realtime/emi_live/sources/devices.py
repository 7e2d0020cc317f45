"""The cameras and microphones that are plugged in, without opening one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emi_live.sources.portaudio import load_sounddevice

__all__ = ["CameraInfo", "MicrophoneInfo", "list_cameras", "list_microphones"]


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera as V4L2 knows it."""

    index: int
    path: str
    name: str


@dataclass(frozen=True, slots=True)
class MicrophoneInfo:
    """An input device as PortAudio knows it."""

    index: int
    name: str
    rate_hz: int
    channels: int
    default: bool


def list_cameras() -> list[CameraInfo]:
    """The cameras under `/dev`, by index."""
    found = []
    for path in Path("/dev").glob("video*"):
        number = path.name.removeprefix("video")
        if number.isdecimal():
            try:
                name = Path(f"/sys/class/video4linux/{path.name}/name").read_text(encoding="utf-8").strip()
            except OSError:
                name = path.name
            found.append(CameraInfo(int(number), str(path), name))
    return sorted(found, key=lambda camera: camera.index)


def list_microphones() -> list[MicrophoneInfo]:
    """The devices that sound can be taken from.

    Raises:
        SourceError: PortAudio is not installed.
    """
    portaudio: Any = load_sounddevice()
    default = portaudio.default.device[0]
    return [
        MicrophoneInfo(
            index,
            info["name"],
            round(info["default_samplerate"]),
            info["max_input_channels"],
            index == default,
        )
        for index, info in enumerate(portaudio.query_devices())
        if info["max_input_channels"] > 0
    ]
