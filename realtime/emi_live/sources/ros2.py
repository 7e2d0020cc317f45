"""Pictures and sound of ROS 2 as a camera and a microphone: `--camera ros2:/image_raw`, `--mic ros2:/audio`.

They are read from DDS, so no ROS is needed. The type of a topic is taken from what is announced. Pictures:
`sensor_msgs/Image` and `CompressedImage`, best effort, the newest wins. Sound: `audio_common_msgs/AudioData`
and `AudioDataStamped` of ros-drivers; from a reliable publisher none is lost. A topic that goes silent is
opened again by `DeviceLoop`.
"""

from __future__ import annotations

import logging
import struct
import time
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S, Clock, offset_ns
from emi_live.errors import ConfigurationError
from emi_live.health import Health
from emi_live.rings import MAX_SIDE_PX, AudioBlock, Frame
from emi_live.ros2 import (
    Raw,
    Ros2Error,
    check_topic,
    dds_name,
    dds_type,
    domain_of,
    participant,
    raw_message,
    user_data,
)
from emi_live.sources import DeviceLostError
from emi_live.sources.microphone import AdcTimeline
from emi_models.libraries import require

__all__ = ["SCHEME", "ImageFeed", "SoundFeed", "Stamps", "Topic", "rgb_of"]

logger = logging.getLogger(__name__)

SCHEME: Final = "ros2:"
IMAGES: Final = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")
SOUNDS: Final = ("audio_common_msgs/AudioData", "audio_common_msgs/AudioDataStamped")
DISCOVERY_S: Final = 5.0
OTHERS_S: Final = 0.5  # for a second publisher, if the first one found has another type
POLL_S: Final = 0.005
DEPTH: Final = 5  # of pictures; rmw_qos_profile_sensor_data
MAX_TAKEN: Final = 64
FUTURE_NS: Final = NS_PER_S  # a stamp further ahead or behind is not of this clock
PAST_NS: Final = 10 * NS_PER_S
AGAIN_NS: Final = 60 * NS_PER_S  # wall time may be set: the offset is measured again
# Encodings of sensor_msgs/image_encodings.hpp: bytes a pixel, and what OpenCV calls the way to RGB.
ENCODINGS: Final[dict[str, tuple[int, str | None]]] = {
    "rgb8": (3, None),
    "bgr8": (3, "COLOR_BGR2RGB"),
    "rgba8": (4, "COLOR_RGBA2RGB"),
    "bgra8": (4, "COLOR_BGRA2RGB"),
    "mono8": (1, "COLOR_GRAY2RGB"),
    "yuv422": (2, "COLOR_YUV2RGB_UYVY"),
    "uyvy": (2, "COLOR_YUV2RGB_UYVY"),
    "yuv422_yuy2": (2, "COLOR_YUV2RGB_YUY2"),
    "yuyv": (2, "COLOR_YUV2RGB_YUY2"),
}
FORMATS: Final = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
MP3: Final = (b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")  # how a message of MP3 begins


@dataclass(frozen=True, slots=True)
class Topic:
    """Where media come from: `ros2:/TOPIC?domain=N`, for sound also `rate`, `channels` and `format`."""

    name: str
    domain: int
    rate_hz: int = 16_000
    channels: int = 1
    format: str = "s16le"

    @classmethod
    def of(cls, option: Literal["--camera", "--mic"], address: str) -> Topic:
        """Read an address that begins with `ros2:`.

        Raises:
            ConfigurationError: it is not valid.
            MissingPackageError: the extra is not installed.
        """
        text = f"{option} {address}"
        name, _, query = address.removeprefix(SCHEME).partition("?")
        known = {
            "domain": "",
            **({"rate": "16000", "channels": "1", "format": "s16le"} if option == "--mic" else {}),
        }
        given = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := sorted(given.keys() - known.keys()):
            raise ConfigurationError(f"{text}: no option {unknown[0]}; there are {', '.join(sorted(known))}")
        values = {**known, **given}
        check_topic(text, name, "/camera/image_raw" if option == "--camera" else "/audio")
        require("cyclonedds", extra="ros2", what=f"{option} ros2:")
        domain = domain_of(text, values["domain"])
        if option == "--camera":
            return cls(name, domain)
        if values["format"] not in FORMATS:
            raise ConfigurationError(f"{text}: format is one of {', '.join(FORMATS)}")
        if not (values["rate"].isdecimal() and 8_000 <= int(values["rate"]) <= 192_000):
            raise ConfigurationError(f"{text}: rate is in samples a second, 8000 to 192000")
        if not (values["channels"].isdecimal() and 1 <= int(values["channels"]) <= 16):
            raise ConfigurationError(f"{text}: channels is a number from 1 to 16")
        return cls(name, domain, int(values["rate"]), int(values["channels"]), values["format"])


class Stamps:
    """Capture times of header stamps, which are wall time, by the engine's clock.

    A stamp that is over 10 s old or over 1 s ahead is of another clock: then the time of arrival counts. That
    is counted as `STREAM.stamps_replaced`, and said once.
    """

    def __init__(self, stream: Literal["video", "audio"], topic: str, clock: Clock, health: Health) -> None:
        self._stream, self._topic = stream, topic
        self._clock, self._health = clock, health
        self._offset: tuple[int, int] | None = None  # when it was measured, and wall time minus our clock
        self._told = False

    def place(self, unix_ns: int, arrived_ns: int) -> int:
        """The capture time of what was stamped at `unix_ns` and arrived at `arrived_ns`, by our clock."""
        if self._offset is None or arrived_ns - self._offset[0] > AGAIN_NS:
            self._offset = arrived_ns, offset_ns(time.time_ns, self._clock.now_ns)
            self._health.note("clock.ros.offset_s", self._offset[1] / NS_PER_S)
        t_ns = unix_ns - self._offset[1]
        if -PAST_NS <= t_ns - arrived_ns <= FUTURE_NS:
            return t_ns
        self._health.count(f"{self._stream}.stamps_replaced")
        if not self._told:
            self._told = True
            away_s = (t_ns - arrived_ns) / NS_PER_S
            where = (
                "not set"
                if unix_ns == 0
                else f"{abs(away_s):.0f} s {'ahead of' if away_s > 0 else 'behind'} this clock"
            )
            logger.warning(
                "the stamps of %s are %s: the time of arrival is used; set both clocks by NTP, "
                "or use no simulated time",
                self._topic,
                where,
            )
        return arrived_ns


class _Reader:
    """A reader of one topic, of the type that its publisher announces."""

    recorded = False

    def __init__(self, topic: Topic, known: tuple[str, ...], lan: bool) -> None:
        from cyclonedds.core import (
            DDSException,
            InstanceState,
            ReadCondition,
            SampleState,
            ViewState,
            WaitSet,
        )
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic as DdsTopic

        try:
            here = participant(topic.domain, lan)
            self.kind, reliable = _announced(here, topic, known)
            sound = self.kind in SOUNDS
            profile = Qos(
                Policy.Reliability.Reliable(NS_PER_S)
                if reliable and sound
                else Policy.Reliability.BestEffort,
                Policy.History.KeepAll if sound else Policy.History.KeepLast(DEPTH),
                Policy.DataRepresentation(use_cdrv0_representation=True),
                Policy.Userdata(user_data(self.kind)),
            )
            self._reader = DataReader(
                here, DdsTopic(here, dds_name(topic.name), raw_message(self.kind)), profile
            )
            self._waits = WaitSet(here)
            self._waits.attach(
                ReadCondition(self._reader, SampleState.NotRead | ViewState.Any | InstanceState.Any)
            )
        except (DDSException, Ros2Error) as error:
            raise DeviceLostError(str(error)) from error

    def take(self, timeout_s: float) -> list[tuple[bytes, int]]:
        """What has come, as bytes of the wire, with the writer's wall time."""
        from cyclonedds.core import DDSException

        try:
            taken = self._reader.take(N=MAX_TAKEN)
            if not taken and timeout_s > 0 and self._waits.wait(round(timeout_s * NS_PER_S)):
                taken = self._reader.take(N=MAX_TAKEN)
        except DDSException as error:
            raise DeviceLostError(str(error)) from error
        return [(one.wire, one.sample_info.source_timestamp) for one in taken if isinstance(one, Raw)]

    def close(self) -> None:
        """Withdraw the reader."""
        self._reader = self._waits = None  # cyclonedds deletes an entity with its last reference


class ImageFeed(_Reader):
    """Pictures of a topic; the newest wins, and those before it are counted as `camera.overwritten`."""

    def __init__(self, topic: Topic, clock: Clock, health: Health, *, lan: bool) -> None:
        """Look for the topic for up to 5 s.

        Raises:
            DeviceLostError: nobody publishes it, or it is of another type.
        """
        super().__init__(topic, IMAGES, lan)
        self._clock, self._health = clock, health
        self._stamps = Stamps("video", topic.name, clock, health)

    def next(self, timeout_s: float) -> Frame | None:
        """The newest picture; None if none came, or it is damaged.

        Raises:
            DeviceLostError: it has an encoding that is not taken.
        """
        taken = self.take(timeout_s)
        if not taken:
            return None
        arrived_ns = self._clock.now_ns()
        self._health.count("camera.overwritten", len(taken) - 1)
        wire = _Wire(taken[-1][0])
        try:
            stamp_ns = wire.stamp()
            if self.kind == IMAGES[0]:
                height, width = wire.number(), wire.number()
                encoding, _, step = wire.text(), wire.byte(), wire.number()
                rgb = rgb_of(encoding, height, width, step, wire.data())
            else:
                wire.text()  # its format; the data say it too
                rgb = _decoded(wire.data())
        except (struct.error, ValueError):
            self._health.count("camera.damaged")
            return None
        return Frame(rgb, self._stamps.place(stamp_ns, arrived_ns))


class SoundFeed(_Reader):
    """Sound of a topic, in its order.

    A stamp is the time of the first sample. Without one, the time at which the message was sent is that of
    its last sample.
    """

    def __init__(self, topic: Topic, clock: Clock, health: Health, *, lan: bool) -> None:
        """Look for the topic for up to 5 s.

        Raises:
            DeviceLostError: nobody publishes it, or it is of another type.
        """
        super().__init__(topic, SOUNDS, lan)
        self._topic, self._clock, self._health = topic, clock, health
        self._stamps = Stamps("audio", topic.name, clock, health)
        self._timeline = AdcTimeline(topic.rate_hz)
        self._waiting: list[tuple[bytes, int, int]] = []  # with the times of sending and of arrival
        self._start = 0

    def next(self, timeout_s: float) -> AudioBlock | None:
        """The oldest block not taken yet, shape (n, channels).

        Raises:
            DeviceLostError: it is MP3, or no whole number of samples.
        """
        if not self._waiting:
            now = self.take(timeout_s)
            arrived_ns = self._clock.now_ns()
            self._waiting = [(wire, sent_ns, arrived_ns) for wire, sent_ns in now]
            if not self._waiting:
                return None
        data, sent_ns, arrived_ns = self._waiting.pop(0)
        wire = _Wire(data)
        stamp_ns = wire.stamp() if self.kind == SOUNDS[1] else None
        pcm = bytes(wire.data())
        samples = self._samples(pcm)
        length_ns = len(samples) * NS_PER_S // self._topic.rate_hz
        if stamp_ns is None:
            reported_ns = self._stamps.place(sent_ns, arrived_ns) - length_ns
        else:
            reported_ns = self._stamps.place(stamp_ns, arrived_ns)
        t_ns = self._timeline.stamp(reported_ns, len(samples))
        block = AudioBlock(samples, t_ns, self._topic.rate_hz, start=self._start)
        self._start += len(samples)
        return block

    def _samples(self, pcm: bytes) -> NDArray[np.float32]:
        topic = self._topic
        kind = np.dtype(FORMATS[topic.format])
        if pcm.startswith(MP3):
            raise DeviceLostError(
                f"{topic.name} is MP3, and PCM is needed: start audio_capture with format:=wave"
            )
        if len(pcm) % (kind.itemsize * topic.channels):
            raise DeviceLostError(
                f"a message of {topic.name} has {len(pcm)} bytes, no whole number of samples of "
                f"{topic.format} in {topic.channels} channels: give rate, channels and format, as in "
                f"--mic 'ros2:{topic.name}?rate=16000&channels=1&format=s16le'"
            )
        samples = np.frombuffer(pcm, kind).astype(np.float32)
        if kind.kind == "i":
            samples /= np.float32(2.0 ** (8 * kind.itemsize - 1))
        return samples.reshape(-1, topic.channels)


def rgb_of(encoding: str, height: int, width: int, step: int, data: memoryview | bytes) -> NDArray[np.uint8]:
    """A picture as RGB, shape (height, width, 3), owned by the caller.

    Args:
        encoding: by its name in sensor_msgs/image_encodings.hpp.
        height: in pixels.
        width: in pixels.
        step: bytes of a row, with what fills it up.
        data: at least `height * step` bytes.

    Raises:
        DeviceLostError: an encoding that is not taken, or a picture that is too large.
        ValueError: the numbers do not fit the data.
    """
    if encoding.lower() not in ENCODINGS:
        raise DeviceLostError(
            f"its pictures are {encoding or 'of no encoding'!r}; taken are {', '.join(ENCODINGS)}: "
            "convert them, e.g. with image_proc"
        )
    size, way = ENCODINGS[encoding.lower()]
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise DeviceLostError(
            f"its pictures of {width}x{height} pixels are too large ({MAX_SIDE_PX} at most)"
        )
    if step < width * size or len(data) < height * step or (size == 2 and width % 2):
        raise ValueError("a picture of the wrong length")
    rows = np.frombuffer(data, np.uint8, height * step).reshape(height, step)[:, : width * size]
    picture = rows.reshape(height, width, size)
    if way is None:
        return picture.copy()
    import cv2

    made: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(picture), getattr(cv2, way))
    return made


def _decoded(data: memoryview) -> NDArray[np.uint8]:
    """A JPEG or PNG as RGB; raises ValueError if it is neither."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise ValueError("no picture that can be decoded")
    made: NDArray[np.uint8] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return made


def _announced(here: Any, topic: Topic, known: tuple[str, ...]) -> tuple[str, bool]:
    """The type of a topic, and whether its publisher is reliable."""
    import threading

    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
    from cyclonedds.qos import Policy

    wanted = {dds_type(name): name for name in known}
    reader, others = BuiltinDataReader(here, BuiltinTopicDcpsPublication), set[str]()
    until_s, pause = time.monotonic() + DISCOVERY_S, threading.Event()
    while time.monotonic() < until_s:
        for one in reader.take(N=MAX_TAKEN):
            if getattr(one, "topic_name", None) != dds_name(topic.name):
                continue
            if one.type_name in wanted:
                kind = one.qos[Policy.Reliability]
                return wanted[one.type_name], isinstance(kind, Policy.Reliability.Reliable)
            others.add(str(one.type_name).replace("::msg::dds_::", "/").rstrip("_"))
            until_s = min(until_s, time.monotonic() + OTHERS_S)
        pause.wait(POLL_S)
    if others:
        raise DeviceLostError(f"{topic.name} is {', '.join(sorted(others))}; taken are {' and '.join(known)}")
    raise DeviceLostError(f"nobody publishes {topic.name} in domain {topic.domain}")


class _Wire:
    """Reads CDR (version 1) field by field; raises struct.error or ValueError where it ends early."""

    def __init__(self, data: bytes) -> None:
        self._order = "<" if data[1] & 1 else ">"
        self._data = memoryview(data)[4:]
        self._at = 0

    def number(self) -> int:
        """A uint32 or int32 that is not negative."""
        self._at += -self._at % 4
        (value,) = struct.unpack_from(f"{self._order}I", self._data, self._at)
        self._at += 4
        return int(value)

    def byte(self) -> int:
        """A uint8."""
        (value,) = struct.unpack_from("B", self._data, self._at)
        self._at += 1
        return int(value)

    def data(self) -> memoryview:
        """A sequence of uint8."""
        length = self.number()
        if len(self._data) - self._at < length:
            raise ValueError("a message that ends early")
        found = self._data[self._at : self._at + length]
        self._at += length
        return found

    def text(self) -> str:
        """A string."""
        return bytes(self.data()).rstrip(b"\0").decode("utf-8", "replace")

    def stamp(self) -> int:
        """A header: its stamp, in nanoseconds since 1970."""
        sec, nanosec = self.number(), self.number()
        self.text()
        return sec * NS_PER_S + nanosec
