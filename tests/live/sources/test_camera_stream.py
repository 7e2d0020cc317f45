"""A real network camera, cut off, restored, hanging and frozen while it is watched."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from emi_live.config import CameraConfig
from tests.support.stream import StreamServer
from tests.support.waiting import until
from tests.support.watch import watching

QUICK = CameraConfig(read_timeout_s=0.7, frozen_after_s=0.7, reopen_first_s=0.1, reopen_last_s=0.3)


@pytest.mark.slow
@pytest.mark.alone
def test_a_stream_is_cut_off_and_restored(face_stream: StreamServer) -> None:
    with watching(face_stream.url, QUICK, ends_s=1.0) as watch:
        until(lambda: watch.frames >= 30)
        assert watch.intake.frames[0][0].shape == (360, 640, 3)
        steps = np.diff([t_ns for _, t_ns in watch.intake.frames]) / 1e6
        assert 25 <= np.median(steps) <= 42  # 30 frames/s
        face_stream.stop()
        until(lambda: watch.state == "failed")
        before = watch.frames
        face_stream.start()
        until(lambda: watch.state == "running" and watch.frames >= before + 15)
        assert watch.count("camera.lost") >= 1


def test_a_stream_that_hangs_is_a_loss(
    face_stream: StreamServer,
) -> None:
    with watching(face_stream.url, QUICK, ends_s=1.0) as watch:
        until(lambda: watch.frames >= 5)
        face_stream.pause()
        until(lambda: watch.state == "failed")


def test_the_end_does_not_wait_for_a_stream_that_hangs(face_stream: StreamServer) -> None:
    before = threading.active_count()
    with watching(face_stream.url, QUICK, ends_s=1.0) as watch:
        until(lambda: watch.frames >= 5)
        face_stream.pause()
    # The reader itself returns when its time-out is over.
    until(lambda: threading.active_count() == before)


def test_the_same_frame_for_ever_is_a_frozen_camera(still_stream: StreamServer) -> None:
    with watching(still_stream.url, QUICK, ends_s=1.0) as watch:
        until(lambda: watch.state == "failed")
        assert watch.health.status("camera").detail.endswith("trying again: the same frame again for 0.7 s")
        assert watch.frames <= 30
