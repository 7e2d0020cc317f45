from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emi_live.config import FaceConfig
from emi_live.health import Health
from emi_live.messages import END_OF_STREAM, Packet, VisionPacket
from emi_live.rings import VideoRing
from emi_live.stages.vision import CropStage
from emi_models.encoders.face import FaceEncoder, FaceResult, cut_square, face_square
from tests.live.stages.fakes import BatchEncoder, MeshFace, key, run_stage
from tests.models.encoders.media import read_frames

NS = 1_000_000_000
FPS = 30


def at(number: int) -> int:
    """When the frame of that number was captured."""
    return number * NS // FPS


def frame(value: int) -> NDArray[np.uint8]:
    return np.full((48, 64, 3), value, np.uint8)


class Rig:
    """The stage on a ring, with fakes."""

    def __init__(self, *, exact: bool = True, face: Any = None, **config: Any) -> None:
        self.ring, self.health, self.encoder = VideoRing(512, lossless=exact), Health(), BatchEncoder()
        self.stage = CropStage(
            self.ring.reader(),
            face or MeshFace(),
            self.encoder,
            FaceConfig(**config),
            self.health,
            exact=exact,
        )

    def feed(self, number: int, value: int = 100) -> list[VisionPacket]:
        self.ring.write(frame(value), at(number), arrived_ns=at(number) + 5)
        return [packet for packet in self.stage.step(0) if isinstance(packet, VisionPacket)]

    def all(self, values: list[int]) -> list[VisionPacket]:
        found = [packet for number, value in enumerate(values) for packet in self.feed(number, value)]
        self.ring.close()
        packets: list[Packet] = [*found, *run_stage(self.stage)]
        assert packets[-1].progress_ns == END_OF_STREAM
        return [packet for packet in packets[:-1] if isinstance(packet, VisionPacket)]


def features(packets: list[VisionPacket]) -> dict[int, list[float]]:
    """By capture time."""
    return {packet.t_ns: packet.features.tolist() for packet in packets if packet.features is not None}


@pytest.mark.parametrize("exact", [True, False])
def test_every_frame_has_a_packet_and_six_a_second_have_features(exact: bool) -> None:
    rig = Rig(exact=exact)
    told = rig.all([100 + number for number in range(60)])
    # Exact: nothing comes before the first frame, which waits for its batch; later ones follow closely.
    assert [packet.progress_ns for packet in told if packet.faces < 0] == ([at(0) - 1] if exact else [])
    packets = [packet for packet in told if packet.faces >= 0]
    assert [packet.t_ns for packet in packets] == [at(number) for number in range(60)]
    assert all(
        packet.progress_ns == packet.t_ns and packet.arrived_ns == packet.t_ns + 5 for packet in packets
    )
    assert {packet.faces for packet in packets} == {1}
    seen = {t_ns: values[0] for t_ns, values in features(packets).items()}
    assert seen == {at(number): 100 + number for number in range(0, 60, 5)}
    assert rig.health.snapshot().counters["face.crops"] == 12


def test_in_exact_mode_batches_are_full_until_the_last() -> None:
    counts = [count for _, count in features(Rig(batch=4).all([100] * 50)).values()]
    assert counts == [4.0] * 8 + [2.0] * 2
    assert {count for _, count in features(Rig(batch=1).all([100] * 50)).values()} == {1.0}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_in_exact_mode_when_frames_arrive_has_no_part_in_the_packets(arrivals: list[int]) -> None:
    values = [0 if 20 <= number < 33 or number == 50 else 100 + number for number in range(70)]
    rig = Rig()
    packets: list[Packet] = []
    numbers = iter(range(len(values)))
    for turn in range(len(values)):
        for number in [next(numbers, None) for _ in range(arrivals[turn % len(arrivals)])]:
            if number is not None:
                rig.ring.write(frame(values[number]), at(number), arrived_ns=at(number) + 5)
        packets += rig.stage.step(0)
    for number in numbers:
        rig.ring.write(frame(values[number]), at(number), arrived_ns=at(number) + 5)
    rig.ring.close()
    packets += run_stage(rig.stage)
    assert [key(packet) for packet in packets[:-1]] == [key(packet) for packet in Rig().all(values)]


def test_a_batch_that_does_not_fill_is_not_waited_for() -> None:
    """The face is lost after two crops of four: what is held stays within the time that four take."""
    rig = Rig(batch=4)
    told = -1
    for number in range(120):
        found = rig.feed(number, 100 if number < 8 else 0)
        told = max([told, *(packet.t_ns for packet in found)])
        assert at(number) - told <= at(20)  # the time that four crops take
    assert told == at(119)
    assert len(rig.encoder.seen) == 2


def test_live_what_is_there_is_encoded_at_once() -> None:
    rig = Rig(exact=False)
    for number in range(30):
        (packet,) = rig.feed(number)
        assert (packet.features is not None) == (number % 5 == 0)


class Busy(MeshFace):
    """While it looks at a frame, the camera takes the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.camera: Any = None

    def analyse(self, rgb: NDArray[np.uint8], t_ns: int) -> FaceResult:
        self.camera()
        return super().analyse(rgb, t_ns)


def test_live_a_crop_waits_only_while_newer_frames_do_and_until_the_next_is_due() -> None:
    face = Busy()
    rig = Rig(exact=False, face=face)
    numbers = iter(range(1, 100))
    face.camera = lambda: rig.ring.write(frame(100), at(next(numbers)))
    rig.ring.write(frame(100), 0)
    steps = [[p for p in rig.stage.step(0) if isinstance(p, VisionPacket)] for _ in range(31)]
    found = [(len(packets), len(features(packets))) for packets in steps]
    # Nothing is held without a crop; two crops are encoded when the second comes.
    turn = [(0, 0)] * 5 + [(6, 2)] + [(1, 0)] * 4
    assert found == [*turn, *turn, *turn, (0, 0)]


def test_live_the_newest_frame_wins_and_losses_are_counted() -> None:
    rig = Rig(exact=False)
    for number in range(7):
        rig.ring.write(frame(100 + number), at(number))
    (packet,) = rig.stage.step(0)
    assert packet.t_ns == at(6)
    assert rig.health.snapshot().counters["camera.overwritten"] == 6


def test_an_encoder_whose_features_come_late_is_said_to_be_slow() -> None:
    rig = Rig(exact=False)

    def feed(number: int, now_ns: int) -> bool:
        rig.ring.write(frame(100), at(number), arrived_ns=at(number))
        return [packet.behind for packet in rig.stage.step(now_ns) if isinstance(packet, VisionPacket)][-1]

    assert not feed(0, 0)
    assert not feed(5, at(0) + 400_000_000)  # the first crop's features are there after 0.4 s
    assert feed(10, at(5) + 600_000_000)
    assert "a face takes 0.6 s to encode" in rig.health.status("face").detail
    assert feed(15, at(10) + 400_000_000)
    assert not feed(20, at(15) + 100_000_000)
    assert rig.health.status("face").detail == "keeps up again"
    assert rig.health.snapshot().counters["face.fell_behind"] == 1


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("returns", [21, 22, 23, 24])
def test_a_face_that_is_found_again_is_cropped_in_its_first_frame(exact: bool, returns: int) -> None:
    values = [100 if number < 7 or number >= returns else 0 for number in range(40)]
    seen = features(Rig(exact=exact).all(values))
    assert min(t_ns for t_ns in seen if t_ns >= at(7)) == at(returns)


def test_a_crop_trembles_less_than_its_landmarks() -> None:
    off = np.random.default_rng(1).normal(0, 0.005, (200, 2))

    def place(t_ns: int) -> tuple[float, float]:
        x, y = off[t_ns * FPS // NS]
        return 0.5 + x, 0.5 + y

    rows, columns = np.indices((480, 640)) // 24
    scene = np.repeat(((rows + columns) % 2 * 200 + 20).astype(np.uint8)[:, :, None], 3, axis=2)
    face, rig = MeshFace(place), Rig(face=MeshFace(place))
    plain = []
    for number in range(0, 150):
        rig.ring.write(scene, at(number))
        rig.stage.step(0)
        if number % 5 == 0:
            landmarks = face.analyse(scene, at(number)).landmarks
            assert landmarks is not None
            plain.append(cut_square(scene, face_square(landmarks, 640, 480), 64))
    steady = np.array(rig.encoder.seen, np.float32)
    assert len(steady) >= 28
    assert np.diff(steady[3:], axis=0).std() < 0.6 * np.diff(np.array(plain[3:], np.float32), axis=0).std()


def test_a_face_found_again_is_cropped_where_it_is() -> None:
    def place(t_ns: int) -> tuple[float, float]:
        return (0.3, 0.5) if t_ns < at(10) else (0.33, 0.5)

    scene = np.indices((48, 64)).sum(axis=0)[:, :, None].repeat(3, axis=2).astype(np.uint8) + 1
    face, rig = MeshFace(place), Rig(face=MeshFace(place), batch=1)
    for number in range(20):
        rig.ring.write(scene if number < 8 or number >= 15 else frame(0), at(number))
        rig.stage.step(0)
    landmarks = face.analyse(scene, at(15)).landmarks
    assert landmarks is not None
    assert np.array_equal(rig.encoder.seen[-1], cut_square(scene, face_square(landmarks, 64, 48), 64))


@pytest.mark.slow
def test_the_face_of_a_clip_is_cropped_again_within_a_fifth_of_a_second(assets: Path) -> None:
    """Of capture time: from the first frame after the gap to the first one that is encoded."""
    ring, encoder = VideoRing(4, lossless=True), BatchEncoder()
    face = FaceEncoder(assets / "mediapipe" / "face_landmarker.task")
    stage = CropStage(ring.reader(), face, encoder, FaceConfig(), Health(), exact=True)
    packets: list[Packet] = []
    for rgb, t_ns in read_frames(assets / "av" / "face_lost_4s_to_8s_speech_throughout.mp4", 10 * FPS):
        ring.write(rgb, t_ns)
        packets += stage.step(0)
    ring.close()
    packets += run_stage(stage)
    face.close()
    visions = [packet for packet in packets[:-1] if isinstance(packet, VisionPacket)]
    encoded = [packet.t_ns / NS for packet in visions if packet.features is not None]
    back = 7.9
    assert max(t for t in encoded if t < back) < 4.0
    assert back <= min(t for t in encoded if t > back - 0.1) <= back + 0.2
    later = [t for t in encoded if t > back]
    assert len(later) == pytest.approx(6 * (10 - back), abs=1)
    assert all(packet.faces == 0 for packet in visions if 4.1 * NS < packet.t_ns < 7.8 * NS)
