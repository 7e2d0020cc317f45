"""Which cameras and microphones this machine has, found out without starting one; for people who choose."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emi_live.sources.microphone import load_sounddevice

__all__ = ["CameraDevice", "MicrophoneDevice", "list_cameras", "list_microphones"]

Ioctl = Callable[[int, int, bytes], bytes]

# Requests and layouts of linux/videodev2.h on 64-bit machines.
QUERY_CAPABILITIES: Final = (0x80685600, 104)
GET_FORMAT: Final = (0xC0D05604, 208)
GET_RATE: Final = (0xC0CC5615, 204)
VIDEO_CAPTURE: Final = 1  # a bit of the capabilities, and a type of buffer
HAS_DEVICE_CAPABILITIES: Final = 0x80000000


@dataclass(frozen=True, slots=True)
class CameraDevice:
    """One camera; `index` is what `--camera` takes."""

    index: int
    path: Path
    name: str
    width_px: int | None = None  # as it is set now; None: unknown
    height_px: int | None = None
    fps: float | None = None
    problem: str = ""  # why it cannot be used, and what to do; empty if it can


@dataclass(frozen=True, slots=True)
class MicrophoneDevice:
    """One input of PortAudio; `--mic` takes the index, the name, or a part of the name."""

    index: int
    name: str
    rate_hz: int
    channels: int
    default: bool = False


def list_cameras(
    devices: Path = Path("/dev"), names: Path = Path("/sys/class/video4linux"), ioctl: Ioctl | None = None
) -> list[CameraDevice]:
    """The cameras of this machine, by index. None is started, so no light goes on.

    Args:
        devices: the folder of the device files.
        names: where the kernel tells their names.
        ioctl: asks a driver; the default is the system's.
    """
    found = []
    for path in devices.glob("video*"):
        number = path.name.removeprefix("video")
        if number.isdecimal():
            try:
                name = (names / path.name / "name").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                name = path.name
            camera = _ask(int(number), path, name, ioctl or _ioctl)
            if camera is not None:
                found.append(camera)
    return sorted(found, key=lambda camera: camera.index)


def list_microphones(load: Callable[[], Any] = load_sounddevice) -> list[MicrophoneDevice]:
    """The inputs that PortAudio knows, by index; `load` gives the module `sounddevice`.

    Raises:
        SourceError: PortAudio is not installed.
    """
    portaudio = load()
    default, listed = None, []
    try:
        listed = portaudio.query_devices()
        default = portaudio.query_devices(None, "input")["index"]
    except (portaudio.PortAudioError, ValueError):  # there is no default, or nothing at all
        pass
    return [
        MicrophoneDevice(
            device["index"],
            device["name"],
            round(device["default_samplerate"]),
            device["max_input_channels"],
            device["index"] == default,
        )
        for device in listed
        if device["max_input_channels"]
    ]


def _ask(index: int, path: Path, name: str, ioctl: Ioctl) -> CameraDevice | None:
    """What the driver says of a device; None if it gives no pictures, as every second one of many cameras."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except PermissionError:
        remedy = "this user may not use it: `sudo usermod -aG video $USER`, then log in again"
        return CameraDevice(index, path, name, problem=remedy)
    except OSError as error:
        return CameraDevice(index, path, name, problem=f"it cannot be opened ({error.strerror})")
    try:
        answer = ioctl(handle, QUERY_CAPABILITIES[0], bytes(QUERY_CAPABILITIES[1]))
        whole, own = struct.unpack_from("<II", answer, 84)
        if not (own if whole & HAS_DEVICE_CAPABILITIES else whole) & VIDEO_CAPTURE:
            return None
        width = height = fps = None
        try:
            request = struct.pack("<I", VIDEO_CAPTURE)
            width, height = struct.unpack_from(
                "<II", ioctl(handle, GET_FORMAT[0], request.ljust(GET_FORMAT[1], b"\0")), 8
            )
            seconds, frames = struct.unpack_from(
                "<II", ioctl(handle, GET_RATE[0], request.ljust(GET_RATE[1], b"\0")), 12
            )
            fps = frames / seconds if seconds and frames else None
        except OSError:  # a driver need not know
            pass
        return CameraDevice(index, path, name, width or None, height or None, fps)
    except OSError as error:
        return CameraDevice(index, path, name, problem=f"it is not a camera ({error.strerror})")
    finally:
        os.close(handle)


def _ioctl(handle: int, request: int, argument: bytes) -> bytes:
    return bytes(fcntl.ioctl(handle, request, argument))
