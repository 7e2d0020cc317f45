"""What every source promises, shown on each of them and on a fake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from emi_live.config import CameraConfig, MicrophoneConfig
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import AudioBlock, Frame
from emi_live.sources import Source
from emi_live.sources.camera import CameraSource
from emi_live.sources.file import FileSource
from emi_live.sources.microphone import MicrophoneSource
from emi_live.sources.push import PushSource
from tests.live.sources.fakes import RecordingIntake, ScriptedDevice, Stop
from tests.support.fakes import FakeClock

Make = Callable[[Path, FakeClock, Stop], Source]


class FakeSource:
    """One frame, then nothing until it is stopped."""

    name = "camera"
    has_video = True
    has_audio = False
    announcements: Sequence[str] = ()

    def run(self, intake: Intake, stop: threading.Event) -> None:
        intake.push_frame(np.zeros((2, 2, 3), np.uint8), 0)
        stop.wait(60)
        intake.end_video()

    def close(self) -> None:
        """Nothing to release."""


def fake(assets: Path, clock: FakeClock, stop: Stop) -> Source:
    return FakeSource()


def file(assets: Path, clock: FakeClock, stop: Stop) -> Source:
    return FileSource(assets / "face/pyfeat_single_face.mp4", Health())


def paced_file(assets: Path, clock: FakeClock, stop: Stop) -> Source:
    return FileSource(assets / "speech/LJ001-0002.wav", Health(), pace=clock)


def camera(assets: Path, clock: FakeClock, stop: Stop) -> Source:
    pictures = [Frame(np.full((8, 8, 3), k, np.uint8), k) for k in range(4)]
    return CameraSource(
        0,
        CameraConfig(),
        clock,
        Health(),
        connect=ScriptedDevice[Frame]([*pictures], clock=clock, stop=stop),
    )


def microphone(assets: Path, clock: FakeClock, stop: Stop) -> Source:
    blocks = [AudioBlock(np.zeros((512, 1), np.float32), k) for k in range(4)]
    device = ScriptedDevice[AudioBlock]([*blocks], clock=clock, stop=stop)
    return MicrophoneSource(None, MicrophoneConfig(), clock, Health(), connect=device)


def push(assets: Path, clock: FakeClock, stop: Stop) -> Source:
    source = PushSource()
    source.end()
    return source


ALL = [fake, file, paced_file, camera, microphone, push]


@pytest.fixture(params=ALL, ids=lambda make: make.__name__)
def source(request: pytest.FixtureRequest, assets: Path, clock: FakeClock, stop: Stop) -> Source:
    make: Make = request.param
    return make(assets, clock, stop)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stop(clock: FakeClock) -> Stop:
    return Stop(clock)


def test_it_has_a_name_and_says_what_it_gives(source: Source) -> None:
    assert source.name in {"camera", "microphone", "file", "push"}
    assert source.has_video or source.has_audio
    source.close()


def test_run_ends_the_streams_it_has_and_leaves_no_thread(source: Source, stop: Stop) -> None:
    before = threading.active_count()
    intake = RecordingIntake()
    source.run(intake, stop)
    assert ("end_video" in intake.events) >= source.has_video
    assert ("end_audio" in intake.events) >= source.has_audio
    assert threading.active_count() == before


def test_a_stop_that_is_set_already_ends_it_at_once(source: Source, stop: Stop) -> None:
    stop.set()
    intake = RecordingIntake()
    source.run(intake, stop)
    assert len(intake.frames) + len(intake.sound) <= 1
    source.close()


def test_it_can_be_closed_without_having_run_and_more_than_once(source: Source) -> None:
    source.close()
    source.close()


def test_pushed_media_last_until_the_program_says_so() -> None:
    source, intake = PushSource(audio=False), RecordingIntake()
    assert source.has_video
    assert not source.has_audio
    thread = threading.Thread(target=source.run, args=(intake, threading.Event()))
    thread.start()
    intake.push_frame(np.zeros((2, 2, 3), np.uint8), 1)
    assert intake.events == ["frame"]
    source.end()
    thread.join(5)
    assert intake.events == ["frame", "end_video", "end_audio"]
