from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_live.config import FaceConfig
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet, VisionPacket
from emi_live.rings import VideoRing
from emi_live.stages.vision import FaceStage
from emi_models.encoders.face import Box, FaceEncoder, FaceResult
from tests.live.stages.fakes import BrightnessFace, run_stage
from tests.models.encoders.media import read_frames

MS = 1_000_000
BLACK, BRIGHT = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 7, np.uint8)


def make(*, lossless: bool = False, max_fps: float = 33.0) -> tuple[VideoRing, FaceStage, Health]:
    ring, health = VideoRing(lossless=lossless), Health()
    encoder: Any = BrightnessFace()
    return ring, FaceStage(ring.reader(), encoder, FaceConfig(max_fps=max_fps), health), health


def test_every_frame_has_a_packet_with_or_without_a_face() -> None:
    ring, stage, _ = make(lossless=True)
    for n, frame in enumerate((BRIGHT, BLACK, BRIGHT)):
        ring.write(frame, n * 40 * MS)
    ring.close()
    packets = run_stage(stage)
    seen = [packet for packet in packets[:-1] if isinstance(packet, VisionPacket)]
    assert [packet.faces for packet in seen] == [1, 0, 1]
    assert [packet.features is None for packet in seen] == [False, True, False]
    assert (
        [packet.t_ns for packet in seen] == [packet.progress_ns for packet in seen] == [0, 40 * MS, 80 * MS]
    )
    assert packets[-1].t_ns == 80 * MS


def test_a_packet_tells_when_its_frame_arrived() -> None:
    ring, stage, _ = make(lossless=True)
    for n in range(3):
        ring.write(BRIGHT, n * 40 * MS, arrived_ns=n * 40 * MS + 9)
    ring.close()
    assert [packet.arrived_ns - packet.t_ns for packet in run_stage(stage)[:-1]] == [9, 9, 9]


def test_live_the_newest_frame_wins() -> None:
    ring, stage, health = make()
    for n in range(5):
        ring.write(BRIGHT, n * 40 * MS)
    ring.close()
    assert [packet.t_ns for packet in run_stage(stage)[:-1]] == [160 * MS]
    assert health.snapshot().counters["camera.overwritten"] == 4


def test_frames_faster_than_the_limit_are_left_out_and_counted() -> None:
    ring, stage, health = make(max_fps=30.0)
    times = []
    for n in range(60):
        ring.write(BRIGHT, n * 1000 * MS // 60)
        times += [packet.t_ns for packet in stage.step(0)]
    assert len(times) == 30
    assert health.snapshot().counters["face.skipped"] == 30
    assert health.snapshot().counters["face.frames"] == 30


def test_jitter_of_the_camera_costs_no_frame() -> None:
    ring, stage, health = make(max_fps=33.0)
    for n in range(30):
        ring.write(BRIGHT, n * 1000 * MS // 30 + (2 * MS if n % 2 else 0))
        stage.step(0)
    assert health.snapshot().counters["face.frames"] == 30


@pytest.mark.slow
def test_the_face_of_a_clip_is_lost_and_found(assets: Path) -> None:
    ring, health = VideoRing(), Health()
    encoder = FaceEncoder(assets / "mediapipe" / "face_landmarker.task")
    stage = FaceStage(ring.reader(), encoder, FaceConfig(), health)
    packets: list[Packet] = []
    for rgb, t_ns in read_frames(assets / "av" / "face_lost_4s_to_8s_speech_throughout.mp4"):
        ring.write(rgb, t_ns)
        packets += stage.step(0)
    ring.close()
    packets += run_stage(stage)
    encoder.close()
    seen = [packet.t_ns / 1e9 for packet in packets if isinstance(packet, VisionPacket) and packet.faces > 0]
    assert not [t for t in seen if 4.1 < t < 7.9]
    assert len([t for t in seen if t < 4.0]) > 110
    assert min(t for t in seen if t > 7.0) < 8.2
    assert packets[-1].progress_ns == END_OF_STREAM


class PuzzlingFace(BrightnessFace):
    """The brightness of a frame says what is wrong with its face: 1 it is dark, 2 it is another one."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        seen = super().analyse(rgb, t_ns)
        value = int(rgb[0, 0, 0])
        return replace(seen, problem="face too dark" if value == 1 else None, changes=int(value == 2))


def test_a_face_that_cannot_be_read_gives_a_reason_and_no_features() -> None:
    ring, health = VideoRing(lossless=True), Health()
    stage = FaceStage(ring.reader(), PuzzlingFace(), FaceConfig(), health)
    for n, value in enumerate((7, 1, 7, 2)):
        ring.write(np.full((4, 4, 3), value, np.uint8), n * 40 * MS)
    ring.close()
    seen = [packet for packet in run_stage(stage)[:-1] if isinstance(packet, VisionPacket)]
    assert [packet.features is None for packet in seen] == [False, True, False, False]
    assert [packet.reason for packet in seen] == [None, "face too dark", None, None]
    counters = health.snapshot().counters
    assert (counters["face.unreadable"], counters["face.changed"]) == (1, 1)
    assert "another face" in health.status("face").detail


class TwoFaces(BrightnessFace):
    """Sees two faces, the second of which is followed."""

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        boxes = (Box(-0.25, 0.0, 0.25, 0.5), Box(0.5, 0.25, 1.0, 0.75))
        points = np.array([[0.5, 0.25], [1.25, -0.5]], np.float32)
        return FaceResult(2, np.zeros(58, np.float32), boxes[1], points, boxes=boxes, followed=1)


def test_a_packet_tells_where_faces_are_and_on_request_the_points_of_the_followed_one() -> None:
    ring, wanted = VideoRing(lossless=True), threading.Event()
    stage = FaceStage(ring.reader(), TwoFaces(), FaceConfig(), Health(), wanted)
    ring.write(BRIGHT, 0)
    (without,) = stage.step(0)
    wanted.set()
    ring.write(BRIGHT, 40 * MS)
    (packet,) = stage.step(0)
    assert isinstance(without, VisionPacket)
    assert isinstance(packet, VisionPacket)
    assert without.landmarks is None
    for one in (without, packet):
        assert one.boxes == ((-0.25, 0.0, 0.5, 0.5), (0.5, 0.25, 0.5, 0.5))
        assert one.followed == 1
    assert packet.landmarks is not None
    points = np.frombuffer(packet.landmarks, "<u2") / 65535
    assert np.allclose(points, [0.5, 0.25, 1.0, 0.0], atol=1e-5), "points outside are put on the edge"
