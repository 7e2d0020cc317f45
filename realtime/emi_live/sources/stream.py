"""A network stream through PyAV: damaged pictures are passed over, and errors say what the server said."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emi_live.addresses import safe_text
from emi_live.clock import NS_PER_S
from emi_live.config import CameraConfig
from emi_live.sources.device import DeviceLostError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["StreamCapture"]

MAX_SIDE_PX: Final = 32_766  # OpenCV and MediaPipe abort the process on more
MAX_ASPECT: Final = 4.0  # pixels more oblong than this are a mistake of the header, and taken as square
MAX_SKIPS: Final = (
    4_096  # unreadable pieces in a row: enough for the lines of one picture of the wrong length
)
PROTOCOLS: Final = (
    "http,https,httpproxy,hls,tcp,tls,udp,udplite,rtp,srtp,crypto,data,rtsp,rtsps,rtmp,rtmps,rtmpt"
)


class StreamCapture:
    """One opened stream or recording on a server. Used by one thread.

    Raises:
        DeviceLostError: it cannot be opened; the message says why.
    """

    def __init__(self, where: str, config: CameraConfig) -> None:
        import av

        self._config = config
        # Over TCP pictures are late where UDP would lose parts of them.
        options = {"rtsp_flags": "prefer_tcp", "protocol_whitelist": PROTOCOLS}
        try:
            self._container: InputContainer = av.open(
                where,
                metadata_errors="replace",
                options=options,
                timeout=(config.open_timeout_s, config.read_timeout_s),
            )
        except (av.FFmpegError, ValueError) as error:
            raise DeviceLostError(_reason(error, "it cannot be reached", config.open_timeout_s)) from error
        self._stream: VideoStream | None = self._container.streams.best("video")
        if self._stream is None or self._stream.codec_context is None:
            found = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            self._container.close()
            raise DeviceLostError(f"it has no picture that can be decoded (found: {found})")
        self._stream.codec_context.thread_count = 1  # each further one would hold back one more picture
        self._packets: Iterator[Packet[Any]] | None = None
        self._skips = 0  # in a row
        self._frames: deque[VideoFrame] = deque()
        self._frame: VideoFrame | None = None
        self._origin_ns: int | None = None
        self.length_ns = (self._container.duration or 0) * 1_000  # libav counts microseconds; 0: not stated
        self.media_ns: int | None = None

    def grab(self) -> bool:
        """Wait for the next picture, at most the configured time-out; False at the end.

        True, and then nothing from `rgb`, if it was damaged.

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
            except av.FFmpegError:  # whatever a decoder says, the next packet may be whole
                return True
        self._frame = self._frames.popleft()
        if self._frame.pts is not None and self._frame.time_base is not None:
            t_ns = int(Fraction(self._frame.pts * NS_PER_S) * self._frame.time_base)
            self._origin_ns = t_ns if self._origin_ns is None else self._origin_ns
            self.media_ns = t_ns - self._origin_ns
        return True

    def rgb(self) -> NDArray[np.uint8] | None:
        """The picture grabbed last, RGB, upright and with square pixels; None if it was damaged.

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
                f"its pictures of {width}x{height} pixels are too large ({MAX_SIDE_PX} at most)"
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
        """The next packet, None at the end. What is none is passed over, and is damage once in a row."""
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
