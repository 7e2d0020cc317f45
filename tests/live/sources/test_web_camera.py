"""Cameras and recordings on a web server: damaged pictures, a password, the pace and end of a recording."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from emi_live.config import CameraConfig
from emi_live.errors import SourceError
from emi_live.rings import MAX_SIDE_PX
from tests.support.waiting import until
from tests.support.watch import Watch, watching
from tests.support.webcam import jpeg, web_camera

CONFIG = CameraConfig(max_damaged=4, reopen_first_s=0.05, reopen_last_s=0.1)


@pytest.mark.slow
def test_a_few_damaged_pictures_are_passed_over() -> None:
    damaged = {
        30: b"x" * 3_000,  # no JPEG at all
        34: jpeg(34)[:2] + b"\xff" * 50 + jpeg(34)[400:],
        38: b"",
        **dict.fromkeys((42, 43, 44), b"<html>busy</html>\n" * 30),
        48: jpeg(48)[: len(jpeg(48)) // 3],  # a third of a picture is decoded as far as it goes
    }

    def parts(index: int) -> bytes:
        return damaged.get(index, jpeg(index))

    with web_camera(parts) as server, watching(server.url(), CONFIG) as watch:
        until(lambda: len(watch.intake.frames) >= 60)
        assert watch.count("camera.damaged") == 6
        assert watch.count("camera.lost") == 0
        assert server.connections == 1


def test_a_stream_of_damaged_pictures_is_a_loss() -> None:
    healthy = threading.Event()

    def parts(index: int) -> bytes:
        return jpeg(index) if index < 30 or healthy.is_set() else b"x" * 3_000

    with web_camera(parts) as server, watching(server.url(), CONFIG) as watch:
        until(lambda: watch.count("camera.lost") >= 1)
        assert "5 damaged frames in a row" in watch.health.status("camera").detail
        healthy.set()
        before = len(watch.intake.frames)
        until(lambda: len(watch.intake.frames) > before + 5)
        assert watch.health.status("camera").state == "running"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of 1.5 s at 20 pictures a second, as a file and as a playlist; one that stands still."""
    folder = tmp_path_factory.mktemp("clips")
    source = ("-f", "lavfi", "-i", "testsrc=size=96x64:rate=20:duration=1.5")
    still = ("-f", "lavfi", "-i", "color=size=96x64:rate=4:duration=1.5")
    encode = ("-c:v", "mpeg4", "-g", "10")
    for options in (
        (*source, *encode, "-movflags", "+faststart", "clip.mp4"),
        (
            *source,
            "-c:v",
            "mpeg2video",
            "-g",
            "10",
            "-f",
            "hls",
            "-hls_time",
            "1",
            "-hls_list_size",
            "0",
            "clip.m3u8",
        ),
        (*still, *encode, "-movflags", "+faststart", "still.mp4"),
    ):
        subprocess.run(["ffmpeg", "-v", "error", *options], check=True, cwd=folder)
    return folder


@pytest.mark.parametrize(("name", "pictures"), [("clip.mp4", 30), ("clip.m3u8", 30), ("still.mp4", 6)])
def test_a_recording_is_played_at_its_pace_and_ends(clips: Path, name: str, pictures: int) -> None:
    with web_camera(folder=clips) as server, watching(server.url(name), CONFIG) as watch:
        watch.thread.join(15.0)
        assert not watch.thread.is_alive()
    assert watch.health.status("camera").state == "ended"
    assert watch.count("camera.lost") == 0
    # Those shown before `run`, and on a busy machine some that a newer one replaced, are missing.
    assert pictures / 2 <= len(watch.intake.frames) <= pictures
    assert 0.9 <= watch.seconds <= 2.5
    assert watch.error is None


def test_a_recording_that_breaks_off_is_an_error(clips: Path) -> None:
    with web_camera(folder=clips) as server:
        server.broken_after = (clips / "clip.mp4").stat().st_size // 3
        with watching(server.url("clip.mp4"), CONFIG) as watch:
            watch.thread.join(15.0)
            assert not watch.thread.is_alive()
        assert "the recording breaks off at" in str(watch.error)


def test_the_answer_of_the_server_is_told_and_no_password() -> None:
    with web_camera(user="me:secret") as server:
        for user in ("", "me:wrong"):
            with pytest.raises(SourceError, match="password") as caught:
                Watch(server.url(user=user), CONFIG)
            assert "wrong" not in str(caught.value)
        with pytest.raises(SourceError, match="404"):
            Watch(server.url("other.mjpg", user="me:secret"), CONFIG)
        with watching(server.url(user="me:secret"), CONFIG) as watch:
            until(lambda: len(watch.intake.frames) >= 3)
    with pytest.raises(SourceError, match="listens"):
        Watch(server.url(user="me:secret"), CONFIG)
    with pytest.raises(SourceError, match="protocol"):
        Watch("htpp://127.0.0.1/cam", CONFIG)


def test_a_page_and_a_sound_are_no_camera(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>no camera</html>" * 100, encoding="utf-8")
    sound = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", str(tmp_path / "sound.wav")]
    subprocess.run(sound, check=True)
    with web_camera(folder=tmp_path) as server:
        with pytest.raises(SourceError, match="not video"):
            Watch(server.url("page.html"), CONFIG)
        with pytest.raises(SourceError, match="found: audio"):
            Watch(server.url("sound.wav"), CONFIG)


@pytest.mark.parametrize("width", [MAX_SIDE_PX + 1, 40_000])
def test_frames_larger_than_the_intake_accepts_are_refused_at_the_start(width: int) -> None:
    _, picture = cv2.imencode(".jpg", np.zeros((16, width, 3), np.uint8))
    with web_camera(lambda _: bytes(picture.tobytes())) as server:
        server.period_s = 0.1
        with pytest.raises(SourceError, match="too large"):
            Watch(server.url(), CONFIG)
