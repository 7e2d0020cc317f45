"""What is listed of cameras and microphones: by drivers that answer, refuse or know little."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from emi_live.sources.capture import (
    GET_FORMAT,
    GET_RATE,
    HAS_DEVICE_CAPABILITIES,
    QUERY_CAPABILITIES,
    VIDEO_CAPTURE,
    CameraDevice,
    list_cameras,
)
from emi_live.sources.microphone import MicrophoneDevice, list_microphones
from tests.live.sources.test_microphone import FakePortAudio

METADATA = 0x00800000  # what the second device of many cameras gives


class Drivers:
    """Answers as V4L2 drivers do, for the device files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.devices, self.names = folder / "dev", folder / "sys"
        self.devices.mkdir()
        self._capabilities: dict[str, int] = {}
        self.rate = True

    def add(self, node: str, name: str, capabilities: int = VIDEO_CAPTURE) -> None:
        (self.devices / node).touch()
        (self.names / node).mkdir(parents=True)
        (self.names / node / "name").write_text(f"{name}\n", encoding="utf-8")
        self._capabilities[node] = capabilities

    def __call__(self, handle: int, request: int, argument: bytes) -> bytes:
        node = Path(os.readlink(f"/proc/self/fd/{handle}")).name
        answer = bytearray(argument)
        if request == QUERY_CAPABILITIES[0]:
            struct.pack_into("<II", answer, 84, HAS_DEVICE_CAPABILITIES | 1, self._capabilities[node])
        elif request == GET_FORMAT[0]:
            assert struct.unpack_from("<I", argument) == (VIDEO_CAPTURE,)
            struct.pack_into("<II", answer, 8, 1280, 720)
        elif request == GET_RATE[0]:
            if not self.rate:
                raise OSError(25, "Inappropriate ioctl for device")
            struct.pack_into("<II", answer, 12, 1, 30)
        return bytes(answer)


@pytest.fixture
def drivers(tmp_path: Path) -> Drivers:
    return Drivers(tmp_path)


def listed(drivers: Drivers) -> list[CameraDevice]:
    return list_cameras(drivers.devices, drivers.names, drivers)


def test_cameras_are_listed_by_number_without_their_second_devices(drivers: Drivers) -> None:
    drivers.add("video10", "Küche")
    drivers.add("video2", "HD Webcam")
    drivers.add("video3", "HD Webcam", METADATA)
    (drivers.devices / "video-x").touch()
    (drivers.devices / "null").touch()
    assert listed(drivers) == [
        CameraDevice(2, drivers.devices / "video2", "HD Webcam", 1280, 720, 30.0),
        CameraDevice(10, drivers.devices / "video10", "Küche", 1280, 720, 30.0),
    ]


def test_a_driver_need_not_know_its_rate(drivers: Drivers) -> None:
    drivers.add("video0", "Virtual")
    drivers.rate = False
    (camera,) = listed(drivers)
    assert (camera.width_px, camera.height_px, camera.fps) == (1280, 720, None)
    assert camera.problem == ""


def test_what_cannot_be_used_says_why(drivers: Drivers) -> None:
    drivers.add("video0", "Broken")
    (drivers.devices / "video1").symlink_to(drivers.devices / "gone")
    broken, gone = list_cameras(drivers.devices, drivers.names)  # asks the real system: no driver answers
    assert broken.name == "Broken"
    assert broken.problem.startswith("it is not a camera (")
    assert gone.name == "video1"
    assert gone.problem == "it cannot be opened (No such file or directory)"


def test_a_machine_without_cameras_has_none(tmp_path: Path) -> None:
    assert list_cameras(tmp_path / "dev", tmp_path / "sys") == []


def test_microphones_are_listed_with_the_default_marked() -> None:
    fake = FakePortAudio(names=["HDMI", "Built-in", "USB"], outputs={"HDMI"})
    assert list_microphones(lambda: fake) == [
        MicrophoneDevice(1, "Built-in", 16_000, 2, default=True),
        MicrophoneDevice(2, "USB", 16_000, 2),
    ]
    assert list_microphones(lambda: FakePortAudio(names=["HDMI"], outputs={"HDMI"})) == []
