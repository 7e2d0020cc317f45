"""Topics of ROS 2 as camera and microphone: written by another participant of DDS, with types of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from emi_live.clock import NS_PER_S, MonotonicClock
from emi_live.config import CameraConfig, LiveConfig
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import AudioBlock, AudioRing, VideoRing
from emi_live.ros2 import LOCAL
from emi_live.sources import DeviceLostError, open_sources
from emi_live.sources.camera import CameraSource
from emi_live.sources.ros2 import ENCODINGS, ImageFeed, SoundFeed, Stamps, Topic, rgb_of
from tests.support.waiting import until

DOMAIN = 78
RATE = 16_000
# A publisher in a process of its own: pictures whose red is their number, and a ramp of samples, both with
# the header's stamp 40 ms before they are sent.
WRITER = f"""
import sys, time
from array import array
from dataclasses import dataclass
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import int32, sequence, uint8, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.topic import Topic
from cyclonedds.util import duration
what, encoding, shift_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32
@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str
@dataclass
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]
@dataclass
class AudioData(IdlStruct, typename="audio_common_msgs::msg::dds_::AudioData_"):
    data: sequence[uint8]
@dataclass
class AudioDataStamped(IdlStruct, typename="audio_common_msgs::msg::dds_::AudioDataStamped_"):
    header: Header
    audio: AudioData
@dataclass
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str
kinds = dict(image=Image, sound=AudioDataStamped, bare=AudioData, text=String)
domain = Domain({DOMAIN}, {LOCAL!r})
here = DomainParticipant({DOMAIN})
sure = Policy.Reliability.Reliable(duration(seconds=1))
profile = Qos(Policy.Reliability.BestEffort if what == "image" else sure,
              Policy.History.KeepLast(5) if what == "image" else Policy.History.KeepAll,
              Policy.DataRepresentation(use_cdrv0_representation=True))
writer = DataWriter(here, Topic(here, "rt/test/" + what, kinds[what]), profile)
while not writer.get_matched_subscriptions():
    time.sleep(0.01)
number = 0
while True:
    number += 1
    sec, nanosec = divmod(time.time_ns() - 40_000_000 + round(shift_s * 1e9), 10**9)
    header = Header(Time(sec, nanosec), "camera" + "x" * (number % 4))
    if what == "image":
        row = bytes([number % 256, 7, 9]) * 8 + b"pad!"
        writer.write(Image(header, 6, 8, encoding, 0, 28, row * 6))
    elif what == "text":
        writer.write(String("no picture"))
    else:
        samples = array("h", [(number * 320 + i) % 30000 for i in range(320)]).tobytes()
        samples = b"ID3" + samples if encoding == "mp3" else samples
        data = AudioData(samples)
        writer.write(AudioDataStamped(header, data) if what == "sound" else data)
    time.sleep(0.02)
"""


@contextmanager
def publisher(what: str, encoding: str = "rgb8", shift_s: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, what, encoding, str(shift_s)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def camera(what: str = "image") -> Topic:
    return Topic.of("--camera", f"ros2:/test/{what}?domain={DOMAIN}")


def microphone(what: str) -> Topic:
    return Topic.of("--mic", f"ros2:/test/{what}?domain={DOMAIN}&rate={RATE}")


@pytest.mark.slow
def test_pictures_come_at_the_time_of_their_stamp_and_the_newest_wins() -> None:
    clock, health = MonotonicClock(), Health()
    with publisher("image"):
        feed = ImageFeed(camera(), clock, health, lan=False)
        until(lambda: feed.next(1.0) is not None)
        threading.Event().wait(0.3)  # some pile up
        frame = feed.next(1.0)
        now_ns = clock.now_ns()
        feed.close()
    assert frame is not None
    assert frame.rgb.shape == (6, 8, 3)
    assert frame.rgb[..., 1:].reshape(-1, 2).tolist() == [[7, 9]] * 48
    assert 40_000_000 <= now_ns - frame.t_ns < 200_000_000
    counters = health.snapshot().counters
    assert counters["camera.overwritten"] >= 1
    assert "video.stamps_replaced" not in counters
    assert health.snapshot().facts["clock.ros.offset_s"] == pytest.approx(
        time.time() - time.monotonic(), abs=0.5
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sound", "bare"])
def test_sound_is_whole_and_in_order(what: str) -> None:
    clock, health = MonotonicClock(), Health()
    with publisher(what):
        feed = SoundFeed(microphone(what), clock, health, lan=False)
        blocks: list[tuple[AudioBlock, int]] = []
        while len(blocks) < 20:
            if (block := feed.next(1.0)) is not None:
                blocks.append((block, clock.now_ns()))
            if len(blocks) == 1:
                threading.Event().wait(0.5)  # all of it waits for us
        feed.close()
    ramp = np.concatenate([block.samples[:, 0] for block, _ in blocks]) * 32768
    steps = np.diff(ramp.round().astype(int)) % 30000
    assert set(steps.tolist()) == {1}  # no sample is lost
    first, now_ns = blocks[0]
    assert 0 <= now_ns - first.end_ns < 200_000_000
    apart = np.diff([block.t_ns for block, _ in blocks]) / 1e6
    assert np.median(apart) == pytest.approx(20, abs=2)


@pytest.mark.slow
def test_a_camera_that_goes_away_and_comes_back_is_read_again() -> None:
    clock, health = MonotonicClock(), Health()
    config = CameraConfig(read_timeout_s=0.5, reopen_first_s=0.05)
    ring, stop = VideoRing(), threading.Event()
    frames = ring.reader(loose=True)
    with publisher("image"):
        source = CameraSource(
            "ros2:/test/image",
            config,
            clock,
            health,
            connect=lambda: ImageFeed(camera(), clock, health, lan=False),
        )
        thread = threading.Thread(target=source.run, args=(Intake(ring, AudioRing(), health), stop))
        thread.start()
        until(lambda: frames.read() is not None)
    try:
        until(lambda: health.status("camera").state == "failed")
        assert "no frames" in health.status("camera").detail
        while frames.read() is not None:
            pass
        with publisher("image"):
            until(lambda: health.status("camera").state == "running")
            until(lambda: frames.read() is not None)
    finally:
        stop.set()
        thread.join(10)
    assert health.snapshot().counters["camera.lost"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "encoding", "word"), [("image", "bayer_rggb8", "bayer_rggb8"), ("text", "", "std_msgs/String")]
)
def test_what_cannot_be_read_is_refused_in_one_line(what: str, encoding: str, word: str) -> None:
    config = LiveConfig.model_validate(
        {
            "source": {"camera": f"ros2:/test/{what}?domain={DOMAIN}", "mic": "none"},
            "camera": {"open_timeout_s": 1},
        }
    )
    with publisher(what, encoding), pytest.raises(SourceError, match=word) as told:
        open_sources(config, MonotonicClock(), Health())
    assert "\n" not in str(told.value)
    assert "ros2 topic info" in str(told.value)


@pytest.mark.slow
def test_mp3_is_refused_with_the_remedy() -> None:
    with publisher("bare", "mp3"):
        feed = SoundFeed(microphone("bare"), MonotonicClock(), Health(), lan=False)
        with pytest.raises(DeviceLostError, match="format:=wave"):
            until(lambda: feed.next(0.5) is not None)
        feed.close()


@pytest.mark.parametrize("away_s", [-3600.0, 2.0, 1e9])
def test_a_stamp_of_another_clock_is_said_once_and_not_used(
    away_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health()
    stamps = Stamps("video", "/camera", MonotonicClock(), health)
    for _ in range(3):
        now_ns = time.monotonic_ns()
        assert stamps.place(time.time_ns() + round(away_s * NS_PER_S), now_ns) == now_ns
    assert stamps.place(0, now_ns) == now_ns
    assert health.snapshot().counters["video.stamps_replaced"] == 4
    (record,) = caplog.records
    assert "/camera" in record.message
    assert ("ahead of" if away_s > 0 else "behind") in record.message


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_every_encoding_gives_the_colours_that_opencv_gives(encoding: str) -> None:
    rng = np.random.default_rng(0)
    size, way = ENCODINGS[encoding]
    raw = rng.integers(0, 256, (4, 6, size), np.uint8)
    padded = np.concatenate([raw.reshape(4, -1), np.full((4, 5), 99, np.uint8)], axis=1)
    found = rgb_of(encoding, 4, 6, padded.shape[1], padded.tobytes())
    wanted = raw if way is None else cv2.cvtColor(raw, getattr(cv2, way))
    np.testing.assert_array_equal(found, wanted)


def test_a_red_picture_is_red_in_every_order() -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    for encoding, data in (("rgb8", red), ("bgr8", red[..., ::-1])):
        found = rgb_of(encoding, 2, 2, 6, np.ascontiguousarray(data).tobytes())
        np.testing.assert_array_equal(found, red)
    uyvy = bytes([90, 81, 240, 81] * 2)  # BT.601: Y 81, U 90, V 240
    found = rgb_of("yuv422", 2, 2, 4, uyvy)
    assert found[..., 0].min() > 240
    assert found[..., 1:].max() < 15


@pytest.mark.parametrize(
    ("height", "width", "step", "length"), [(6, 8, 24, 143), (6, 8, 23, 144), (6, 8, 2**31, 10)]
)
def test_a_picture_of_the_wrong_length_is_damaged(height: int, width: int, step: int, length: int) -> None:
    with pytest.raises(ValueError, match="length"):
        rgb_of("rgb8", height, width, step, bytes(length))


@pytest.mark.parametrize(
    ("option", "address"),
    [
        ("--camera", "ros2:image"),
        ("--camera", "ros2:/image?rate=3"),
        ("--camera", "ros2:/image?domain=999"),
        ("--mic", "ros2:/audio?rate=1"),
        ("--mic", "ros2:/audio?channels=0"),
        ("--mic", "ros2:/audio?format=mp3"),
    ],
)
def test_an_invalid_address_is_refused(option: str, address: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        Topic.of(option, address)  # type: ignore[arg-type]
