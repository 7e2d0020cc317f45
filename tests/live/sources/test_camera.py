"""A camera's faults by script: loss, silence, freezing, return; and what is said of one that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from emi_live.clock import NS_PER_MS
from emi_live.config import CameraConfig
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.rings import Frame
from emi_live.sources import DeviceLostError
from emi_live.sources.camera import CameraSource, FreezeDetector
from emi_live.sources.capture import advice
from tests.live.sources.fakes import RecordingIntake, ScriptedDevice, Stop
from tests.support.fakes import FakeClock

PERIOD_NS = 100 * NS_PER_MS
TIMES = [k * PERIOD_NS for k in range(1_000)]


def picture(t_ns: int, content: int) -> Frame:
    return Frame(np.random.default_rng(content).integers(0, 255, (48, 64, 3), np.uint8), t_ns)


class Scene:
    """Frames 100 ms apart, moving or still."""

    def __init__(self) -> None:
        self._times: Iterator[int] = iter(TIMES)
        self._contents = count(1)

    def moving(self, frames: int) -> list[Frame | float | DeviceLostError]:
        return [picture(next(self._times), next(self._contents)) for _ in range(frames)]

    def still(self, frames: int, content: int = 0) -> list[Frame | float | DeviceLostError]:
        return [picture(next(self._times), content) for _ in range(frames)]


def watch(
    *scripts: list[Frame | float | DeviceLostError] | DeviceLostError,
    config: CameraConfig | None = None,
) -> tuple[RecordingIntake, Health, ScriptedDevice[Frame]]:
    clock, health = FakeClock(), Health()
    stop = Stop(clock)
    device = ScriptedDevice[Frame](*scripts, clock=clock, stop=stop)
    intake = RecordingIntake(health)
    CameraSource(0, config or CameraConfig(), clock, health, connect=device).run(intake, stop)
    assert intake.events[-1] == "end_video"
    assert "end_audio" not in intake.events
    assert all(feed.closed == 1 for feed in device.feeds)
    return intake, health, device


def test_frames_keep_the_time_of_their_capture() -> None:
    intake, health, _ = watch(Scene().moving(11))
    assert [t_ns for _, t_ns in intake.frames] == TIMES[1:11]
    assert health.status("camera").state == "ended"


def test_a_lost_camera_is_opened_again() -> None:
    scene = Scene()
    intake, health, device = watch(
        [*scene.moving(5), DeviceLostError("the camera gave no frame")], scene.moving(5)
    )
    assert len(intake.frames) == 9
    assert len(device.feeds) == 2
    assert health.snapshot().counters["camera.lost"] == 1


def test_a_hanging_camera_is_opened_again() -> None:
    scene = Scene()
    intake, health, _ = watch([*scene.moving(5), 60.0], scene.moving(5))
    assert len(intake.frames) == 9
    assert health.snapshot().counters["camera.lost"] == 1


def test_a_frozen_camera_is_noticed_reopened_and_its_frame_withheld() -> None:
    scene = Scene()
    script = [*scene.moving(5), *scene.still(30)]
    # After the first reopening it still repeats its last frame, after the second it is alive.
    intake, health, device = watch(script, scene.still(30), scene.moving(5))
    assert health.snapshot().counters["camera.lost"] == 1
    assert len(device.feeds) == 3
    repeated = [rgb for rgb, _ in intake.frames if np.array_equal(rgb, picture(0, 0).rgb)]
    assert len(repeated) == 20  # 2 s of them, before it counted as frozen
    assert len(intake.frames) == 4 + 20 + 5


def test_the_reason_of_a_freeze_is_said() -> None:
    scene, reasons = Scene(), list[tuple[object, str]]()

    class Listening(Health):
        def report(self, part: str, state: object, detail: str = "") -> None:
            super().report(part, state, detail)  # type: ignore[arg-type] # as the base takes it
            reasons.append((state, detail))

    clock = FakeClock()
    stop = Stop(clock)
    device = ScriptedDevice[Frame](
        [*scene.moving(2), *scene.still(30)], scene.moving(3), clock=clock, stop=stop
    )
    CameraSource("0", CameraConfig(), clock, Listening(), connect=device).run(RecordingIntake(), stop)
    (failed,) = [detail for state, detail in reasons if state == "failed"]
    assert re.fullmatch(r"lost at \d\d:\d\d:\d\d, trying again: the same frame again for 2.0 s", failed)
    assert reasons[-2:] == [("running", ""), ("ended", "")]


def test_repetition_shorter_than_the_limit_is_a_slow_camera() -> None:
    scene = Scene()
    script = scene.moving(1)
    for content in range(5):
        script += scene.still(15, content)
    intake, health, _ = watch(script)
    assert len(intake.frames) == 75
    assert "camera.lost" not in health.snapshot().counters


def test_a_freeze_detector_needs_exactness() -> None:
    detector = FreezeDetector(after_ns=200)
    rgb = np.zeros((48, 64, 3), np.uint8)
    noisy = rgb.copy()
    noisy[8, 8, 1] = 1
    assert [
        detector.observe(frame, t) for t, frame in ((0, rgb), (150, rgb), (190, noisy), (380, noisy))
    ] == ["live"] * 4
    assert detector.observe(noisy, 390) == "frozen"
    assert detector.observe(noisy, 400) == "repeating"
    assert detector.observe(noisy, 600) == "frozen"
    assert detector.observe(rgb, 610) == "live"


def test_an_absent_camera_is_no_source() -> None:
    with pytest.raises(SourceError, match="camera 63") as caught:
        CameraSource(63, CameraConfig(), FakeClock(), Health())
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_an_address_that_nobody_answers_is_no_source_and_keeps_its_password() -> None:
    with pytest.raises(SourceError, match="ffplay") as caught:
        CameraSource(
            "http://me:secret@127.0.0.1:9/cam", CameraConfig(open_timeout_s=1), FakeClock(), Health()
        )
    assert "secret" not in str(caught.value)


def test_a_media_file_is_not_a_camera(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    with pytest.raises(ConfigurationError, match="--input"):
        CameraSource(str(clip), CameraConfig(), FakeClock(), Health())


def test_the_address_of_a_file_is_not_a_camera() -> None:
    with pytest.raises(ConfigurationError, match=r"use --input /clip\.mp4"):
        CameraSource("file:///clip.mp4", CameraConfig(), FakeClock(), Health())


def test_a_pipe_is_not_a_camera(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipe"):
        CameraSource(str(tmp_path / "pipe"), CameraConfig(), FakeClock(), Health())


def test_a_name_is_not_a_camera() -> None:
    with pytest.raises(SourceError, match="a number"):
        CameraSource("webcam", CameraConfig(), FakeClock(), Health())


def test_advice_on_a_device_names_what_there_is() -> None:
    devices = sorted(Path("/dev").glob("video*"))
    text = advice(63)
    assert (str(devices[0]) in text) if devices else ("there is no /dev/video* here" in text)
