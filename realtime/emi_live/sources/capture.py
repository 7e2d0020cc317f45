"""Opening a camera of this machine (OpenCV) or a network stream (PyAV), and listing the cameras.

`OpenCvCapture` and `StreamCapture` are the two kinds of `Capture`. `list_cameras` asks the drivers and starts
no camera; `advice` says what to do about one that cannot be opened.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.addresses import is_ros2, safe_address, safe_text
from emi_live.clock import NS_PER_S
from emi_live.config import CameraConfig
from emi_live.rings import MAX_SIDE_PX
from emi_live.sources import DeviceLostError
from emi_live.sources.container import any_text

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from cv2 import VideoCapture

__all__ = [
    "CameraDevice",
    "Capture",
    "OpenCvCapture",
    "StreamCapture",
    "advice",
    "is_url",
    "list_cameras",
]

MAX_ASPECT: Final = 4.0  # pixels more oblong than this are a mistake of the header, and taken as square
# Unreadable packets in a row: enough for the lines of one frame of the wrong length.
MAX_SKIPS: Final = 4_096
PROTOCOLS: Final = (
    "http,https,httpproxy,hls,tcp,tls,udp,udplite,rtp,srtp,crypto,data,rtsp,rtsps,rtmp,rtmps,rtmpt"
)

Ioctl = Callable[[int, int, bytes], bytes]

# Requests and layouts of linux/videodev2.h on 64-bit machines.
QUERY_CAPABILITIES: Final = (0x80685600, 104)
GET_FORMAT: Final = (0xC0D05604, 208)
GET_RATE: Final = (0xC0CC5615, 204)
VIDEO_CAPTURE: Final = 1  # a bit of the capabilities, and a type of buffer
HAS_DEVICE_CAPABILITIES: Final = 0x80000000


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used; called from one thread."""

    @property
    def length_ns(self) -> int:
        """Length of a recording that states one; 0 for a camera."""
        ...

    @property
    def media_ns(self) -> int | None:
        """When the frame grabbed last is due, from the first one on; None if the stream does not say."""
        ...

    def grab(self) -> bool:
        """Wait for the next frame; False when there is none.

        Raises:
            DeviceLostError: there will be none, and the message says why.
        """
        ...

    def rgb(self) -> NDArray[np.uint8] | None:
        """The frame grabbed last, shape (height, width, 3), owned by the caller; None if it is damaged."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


def is_url(where: int | str) -> bool:
    """Whether a camera is reached over the network."""
    return isinstance(where, str) and "://" in where


def advice(where: int | str) -> str:
    """What to do about a camera that cannot be opened."""
    if is_ros2(where):
        topic = str(where).removeprefix("ros2:").partition("?")[0]
        return f"check `ros2 topic info -v {topic}`, the domain, and --lan if it is on another machine"
    if is_url(where):
        return f"check that `ffplay {safe_address(where)}` shows it"
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    path = f"/dev/video{where}" if isinstance(where, int) else where
    if not path.startswith("/"):
        return "a camera is a number (0), a device (/dev/video0) or an address (rtsp://HOST/…, http://HOST/…)"
    if not devices:
        return "there is no /dev/video* here: plug a camera in, or give a stream's URL with --camera"
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        return f"this user may not use {path}: `sudo usermod -aG video $USER`, then log in again"
    return f"it may be in use by another program; devices here: {', '.join(devices)}"


class OpenCvCapture:
    """One camera on this machine by `cv2.VideoCapture`, set up for the lowest delay. Used by one thread.

    Raises:
        DeviceLostError: the device cannot be opened.
    """

    length_ns = 0
    media_ns = None

    def __init__(self, where: int | str, config: CameraConfig) -> None:
        # The libraries below write to the terminal, into the view; a user's own setting wins.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        import cv2

        if "OPENCV_LOG_LEVEL" not in os.environ:
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._cv2 = cv2
        self._capture = self._open(where, config)
        if not self._capture.isOpened():
            self._capture.release()
            raise DeviceLostError("it cannot be opened")

    def grab(self) -> bool:
        """Wait for the next frame."""
        return bool(self._capture.grab())

    def rgb(self) -> NDArray[np.uint8] | None:
        """The frame grabbed last, RGB."""
        good, frame = self._capture.retrieve()
        if not good or frame is None or frame.size == 0:
            return None
        grey = frame.ndim == 2 or frame.shape[2] == 1
        code = self._cv2.COLOR_GRAY2RGB if grey else self._cv2.COLOR_BGR2RGB
        rgb: NDArray[np.uint8] = self._cv2.cvtColor(frame, code)
        return rgb

    def release(self) -> None:
        """Close the device."""
        self._capture.release()

    def _open(self, where: int | str, config: CameraConfig) -> VideoCapture:
        cv2 = self._cv2
        capture: VideoCapture = cv2.VideoCapture(
            where, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        )
        # Two: with one, a driver has nowhere to put the next frame while this one is read, and the rate
        # halves.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        if config.width_px or config.height_px:  # over USB 2, larger frames come at full rate only as JPEG
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        wishes = {
            cv2.CAP_PROP_FRAME_WIDTH: config.width_px,
            cv2.CAP_PROP_FRAME_HEIGHT: config.height_px,
            cv2.CAP_PROP_FPS: config.fps,
        }
        for setting, value in wishes.items():
            if value is not None:
                capture.set(setting, value)
        return capture


class StreamCapture:
    """One opened stream or recording on a server. Used by one thread.

    Raises:
        DeviceLostError: it cannot be opened; the message says why.
    """

    def __init__(self, where: str, config: CameraConfig) -> None:
        import av

        self._config = config
        # Where UDP would lose parts of frames, over TCP they are late.
        options = {"rtsp_flags": "prefer_tcp", "protocol_whitelist": PROTOCOLS}
        try:
            self._container: InputContainer = av.open(
                where,
                options=options,
                timeout=(config.open_timeout_s, config.read_timeout_s),
                **any_text(),
            )
        except (av.FFmpegError, ValueError) as error:
            raise DeviceLostError(_reason(error, "it cannot be reached", config.open_timeout_s)) from error
        self._stream: VideoStream | None = self._container.streams.best("video")
        if self._stream is None or self._stream.codec_context is None:
            found = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            self._container.close()
            raise DeviceLostError(f"it has no video that can be decoded (found: {found})")
        self._stream.codec_context.thread_count = 1  # each further one would hold back one more frame
        self._packets: Iterator[Packet[Any]] | None = None
        self._skips = 0  # in a row
        self._frames: deque[VideoFrame] = deque()
        self._frame: VideoFrame | None = None
        self._origin_ns: int | None = None
        self.length_ns = (self._container.duration or 0) * 1_000  # libav counts microseconds; 0: not stated
        self.media_ns: int | None = None

    def grab(self) -> bool:
        """Wait for the next frame, at most the configured time-out; False at the end.

        If the frame was damaged: True, and `rgb` returns None.

        Raises:
            DeviceLostError: the stream is broken off.
        """
        import av

        self._frame = None
        while not self._frames:
            try:
                packet = self._next_packet()
            except av.FFmpegError as error:
                raise DeviceLostError(
                    _reason(error, "it is broken off", self._config.read_timeout_s)
                ) from error
            if packet is None:
                return False
            try:
                self._frames.extend(packet.decode())
            except av.FFmpegError:  # the next packet may be undamaged
                return True
        self._frame = self._frames.popleft()
        if self._frame.pts is not None and self._frame.time_base is not None:
            t_ns = int(Fraction(self._frame.pts * NS_PER_S) * self._frame.time_base)
            self._origin_ns = t_ns if self._origin_ns is None else self._origin_ns
            self.media_ns = t_ns - self._origin_ns
        return True

    def rgb(self) -> NDArray[np.uint8] | None:
        """The frame grabbed last, RGB, upright and with square pixels; None if it was damaged.

        Raises:
            DeviceLostError: it is too large.
        """
        frame = self._frame
        if frame is None:
            return None
        aspect = float((self._stream and self._stream.sample_aspect_ratio) or Fraction(1))
        if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
            aspect = 1.0
        width, height = round(frame.width * aspect), frame.height
        if max(width, height) > MAX_SIDE_PX:
            raise DeviceLostError(
                f"its frames of {width}x{height} pixels are too large ({MAX_SIDE_PX} at most)"
            )
        square = frame.reformat(width, height, "rgb24", threads=1)
        turns = round(frame.rotation / 90)
        return np.ascontiguousarray(np.rot90(np.asarray(square.to_ndarray(), np.uint8), turns))

    def release(self) -> None:
        """Close the connection."""
        self._packets = None
        self._frames.clear()
        self._frame = None
        self._container.close()

    def _next_packet(self) -> Packet[Any] | None:
        """The next packet, None at the end. Other data is skipped; a run of it is reported once."""
        import av

        while True:
            if self._packets is None:
                self._packets = self._container.demux(self._stream)
            try:
                packet = next(self._packets, None)
            except (av.error.InvalidDataError, IndexError):  # IndexError: a stream that was not there before
                self._packets = None
                self._skips += 1
                if self._skips > MAX_SKIPS:
                    raise DeviceLostError("what it sends is not video any more") from None
                if self._skips == 1:
                    raise av.error.InvalidDataError(0, "not a packet") from None
            else:
                self._skips = 0
                return packet


def _reason(error: Exception, doing: str, patience_s: float) -> str:
    """What went wrong, in words, without the address that FFmpeg puts into its messages."""
    import av

    match error:
        case av.error.HTTPUnauthorizedError():
            return "it asks for a user and a password (401), or refuses these: rtsp://USER:PASSWORD@HOST/…"
        case av.error.HTTPError():
            return f"the server answers: {error.strerror}"
        case av.error.ProtocolNotFoundError():
            return "no such protocol; write http://, https://, rtsp://, rtsps:// or rtmp://"
        case av.error.ConnectionRefusedError():
            return "nothing listens on that port (connection refused)"
        case av.error.ExitError():
            return f"no answer for {patience_s:.1f} s"
        case av.error.InvalidDataError():
            return "what it sends is not video"
    reason = getattr(error, "strerror", None) or str(error).partition(": '")[0]
    return f"{doing} ({safe_text(reason)})"


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


def list_cameras(
    devices: Path = Path("/dev"), names: Path = Path("/sys/class/video4linux"), ioctl: Ioctl | None = None
) -> list[CameraDevice]:
    """The cameras of this machine, by index. No camera is started, so no light goes on.

    Args:
        devices: the folder of the device files.
        names: the folder of the kernel's names for them.
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


def _ask(index: int, path: Path, name: str, ioctl: Ioctl) -> CameraDevice | None:
    """What the driver says of a device; None if it gives no frames, as the second device of many cameras."""
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
