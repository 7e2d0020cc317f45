"""A camera or a network stream as a source of frames; one that gives none, or only repeats, is reopened.

`Grabber` reads the camera in its own thread, because the call that reads it may never return.
`Pacer` plays a recording at its own pace. `FreezeDetector` detects a camera that repeats its last frame, as
some drivers do after an unplug.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from emi_live.addresses import safe_address
from emi_live.clock import NS_PER_MS, NS_PER_S, Clock, seconds_to_ns
from emi_live.config import CameraConfig
from emi_live.errors import ConfigurationError, SourceError
from emi_live.health import Health
from emi_live.intake import Intake
from emi_live.rings import Frame
from emi_live.sources import DeviceLoop, DeviceLostError, Feed, FeedEndedError
from emi_live.sources.capture import Capture, OpenCvCapture, StreamCapture, advice, is_url
from emi_live.worker import Backoff, Worker

__all__ = ["CameraSource", "FreezeDetector", "Grabber", "Pacer"]

CLOSE_S: Final = 0.4  # a grab that hangs longer is left behind; it releases the device when it returns
# A first frame that arrives this soon was waiting in a buffer; its capture time is not known.
BUFFERED_NS: Final = 5 * NS_PER_MS
MAX_BUFFERED: Final = 64
MAX_LAG_NS: Final = NS_PER_S // 2  # a recording that is later than this is not played faster to catch up
MAX_STILL_NS: Final = 120 * NS_PER_S  # a longer step between two frames means that their stamps are wrong
# A camera may send a little faster than its stamps say. A minute sent eight times as fast is a recording.
FAST_NS: Final = 60 * NS_PER_S
FAST: Final = 8


class Pacer:
    """Distinguishes a recording from a camera, and says when a frame of a recording is due. Pure logic.

    A recording states its length, or comes far faster than its stamps. A stream that goes on past the length
    that it stated is a camera after all.
    """

    def __init__(self) -> None:
        self._start_ns: int | None = None  # clock time of media time 0
        self._fast = False

    def due_ns(self, media_ns: int | None, length_ns: int, now_ns: int) -> int | None:
        """When a frame that arrived at `now_ns` is due; None for a camera, whose frames are due at once."""
        if media_ns is None:
            return None
        if self._start_ns is None:
            self._start_ns = now_ns - media_ns
        elapsed_ns = now_ns - self._start_ns
        self._fast = self._fast or media_ns >= max(FAST_NS, FAST * elapsed_ns)
        stated = length_ns > 0 and media_ns <= length_ns + NS_PER_S
        if not stated and not self._fast:
            return None
        if not -MAX_LAG_NS <= media_ns - elapsed_ns <= MAX_STILL_NS:
            self._start_ns = now_ns - media_ns
        return self._start_ns + media_ns


class Grabber:
    """One opened camera, drained as fast as it delivers; only the newest frame is kept.

    Opening happens in the thread too. `connect` raises `DeviceLostError` when it fails. Frames replaced
    before they were taken are counted as `camera.overwritten`, damaged ones as `camera.damaged`, and those
    that had waited in a buffer when the device was opened as `camera.buffered`. More than `max_damaged`
    damaged ones in a row are a loss.

    The ring also keeps the newest frame, and this one is still needed. A `grab` that hangs may return at any
    time, after the camera was opened again. Its frame then stays here, in a grabber that is not read any
    more, and the ring has one writer. A frame is handed over without a copy.

    A recording is played at its own pace, and ends with `FeedEndedError`.
    """

    def __init__(
        self, connect: Callable[[], Capture], clock: Clock, health: Health, *, max_damaged: int = 30
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._health = health
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._loss: DeviceLostError | SourceError | None = None
        self._max_damaged = max_damaged
        self._damaged = 0  # in a row
        self.recorded = False
        self._worker = Worker("camera-reader", self._read, Health(), on_exit=self._notice_exit)
        self._worker.start()

    def next(self, timeout_s: float) -> Frame | None:
        """The newest frame not taken yet; None if there was none within `timeout_s`.

        Raises:
            DeviceLostError: the device could not be opened, or has ended.
            SourceError: a recording is broken off.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._loss is not None, timeout_s)
            frame, self._newest = self._newest, None
            if frame is None and self._loss is not None:
                raise self._loss
            return frame

    def close(self) -> None:
        """Release the device, or leave that to the thread if it hangs."""
        self._worker.request_stop()
        self._worker.join(CLOSE_S)

    def _read(self, stop: threading.Event) -> None:
        try:
            capture = self._connect()
        except DeviceLostError as error:
            self._lose(error)
            return
        pacer = Pacer()
        try:
            may_wait = MAX_BUFFERED  # frames that may still have been waiting when the device was opened
            while not stop.is_set():
                before_ns = self._clock.now_ns()
                if not capture.grab():
                    raise DeviceLostError("the camera gave no frame")
                t_ns = self._clock.now_ns()  # before decoding, which takes milliseconds
                due_ns = pacer.due_ns(capture.media_ns, capture.length_ns, t_ns)
                self.recorded = due_ns is not None
                may_wait = may_wait - 1 if t_ns - before_ns < BUFFERED_NS else 0
                if due_ns is not None:
                    self._clock.wait_until(due_ns, stop)
                    self._offer(capture.rgb(), self._clock.now_ns())
                elif may_wait > 0:
                    self._health.count("camera.buffered")
                else:
                    self._offer(capture.rgb(), t_ns)
        except DeviceLostError as error:
            self._lose(_end_of_recording(capture, error) if self.recorded else error)
        finally:
            capture.release()

    def _offer(self, rgb: NDArray[np.uint8] | None, t_ns: int) -> None:
        if rgb is None:
            self._health.count("camera.damaged")
            self._damaged += 1
            if self._damaged > self._max_damaged:
                raise DeviceLostError(f"{self._damaged} damaged frames in a row")
            return
        self._damaged = 0
        with self._changed:
            if self._newest is not None:
                self._health.count("camera.overwritten")
            self._newest = Frame(rgb, t_ns)
            self._changed.notify_all()

    def _lose(self, reason: DeviceLostError | SourceError) -> None:
        with self._changed:
            self._loss = reason
            self._changed.notify_all()

    def _notice_exit(self) -> None:
        if self._loss is None:
            self._lose(DeviceLostError(str(self._worker.error or "the camera was closed")))


def _end_of_recording(capture: Capture, reason: DeviceLostError) -> DeviceLostError | SourceError:
    """`FeedEndedError` near the stated length, which some containers only estimate; else `SourceError`."""
    end_s, length_s = (capture.media_ns or 0) / NS_PER_S, capture.length_ns / NS_PER_S
    if length_s - end_s <= max(1.0, 0.05 * length_s):
        return FeedEndedError("the recording has ended")
    return SourceError(f"the recording breaks off at {end_s:.1f} s of {length_s:.1f} s ({reason})")


# Every fourth pixel of every fourth row is compared: sensor noise changes many of these in each frame.
STRIDE: Final = 4


class FreezeDetector:
    """Compares each frame with the one before; exact repetition for `after_ns` means frozen.

    It stays frozen, across a reopening too, until a frame differs.
    """

    def __init__(self, after_ns: int) -> None:
        self._after_ns = after_ns
        self._digest: int | None = None
        self._since_ns: int | None = None  # None: a new watch begins with the next frame
        self._frozen = False

    def observe(self, rgb: NDArray[np.uint8], t_ns: int) -> Literal["live", "repeating", "frozen"]:
        """The state of the camera after this frame.

        `live`: use the frame. `frozen`: it has been the same for `after_ns`; reopen the device, a new watch
        begins. `repeating`: still the frame that the camera froze on; do not use it.
        """
        digest = crc32(rgb[::STRIDE, ::STRIDE].tobytes())
        if digest != self._digest:
            self._digest, self._since_ns, self._frozen = digest, t_ns, False
            return "live"
        if self._since_ns is None:
            self._since_ns = t_ns
        if t_ns - self._since_ns >= self._after_ns:
            self._since_ns, self._frozen = None, True
            return "frozen"
        return "repeating" if self._frozen else "live"


class CameraSource:
    """One camera, by index, device path or URL; the newest frame always wins.

    A recording on a server is played at its own pace, and ends.

    A frame's capture time is read right after it was grabbed. A camera that gives no frame, or the very
    same one for `frozen_after_s`, is reported as `failed` and opened again for as long as it takes.
    """

    announcements: Sequence[str] = ()

    def __init__(
        self,
        where: int | str,
        config: CameraConfig,
        clock: Clock,
        health: Health,
        *,
        connect: Callable[[], Feed[Frame]] | None = None,
    ) -> None:
        """Open the camera and wait for its first frame.

        Args:
            where: index, device path or URL.
            config: how it is opened and watched.
            clock: the clock of capture times.
            health: gets the part `camera` and the counters `camera.*`.
            connect: opens the device; the default uses OpenCV.

        Raises:
            ConfigurationError: `where` is a media file.
            SourceError: there is no such camera, or it gives no frame.
        """
        where = int(where) if isinstance(where, str) and where.isdecimal() else where
        if isinstance(where, str):
            _refuse_what_is_no_camera(where)
        self._health = health

        def open_capture() -> Capture:
            return StreamCapture(str(where), config) if is_url(where) else OpenCvCapture(where, config)

        self._freeze = FreezeDetector(seconds_to_ns(config.frozen_after_s))
        self._frozen_text = f"the same frame again for {config.frozen_after_s:.1f} s"
        self._loop = DeviceLoop[Frame](
            self.name,
            connect or (lambda: Grabber(open_capture, clock, health, max_damaged=config.max_damaged)),
            clock,
            health,
            nothing="no frames arriving",
            first_s=config.open_timeout_s,
            silent_s=config.read_timeout_s,
            backoff=Backoff(config.reopen_first_s, config.reopen_last_s),
        )
        try:
            self._loop.open()
        except DeviceLostError as error:
            raise SourceError(f"camera {safe_address(where)}: {error}; {advice(where)}") from error

    @property
    def name(self) -> str:
        """`camera`."""
        return "camera"

    @property
    def has_video(self) -> bool:
        """Always."""
        return True

    @property
    def has_audio(self) -> bool:
        """Never: sound comes from a microphone."""
        return False

    @property
    def recorded(self) -> bool:
        """Whether it is a recording, which is played once; known for sure when it states its length."""
        return self._loop.recorded

    def run(self, intake: Intake, stop: threading.Event) -> None:
        """Push frames until `stop` is set; then release the camera and end the frames, not the sound.

        Raises:
            SourceError: a recording is broken off.
        """

        def accept(frame: Frame) -> bool:
            # In a recording nothing need move.
            state = "live" if self._loop.recorded else self._freeze.observe(frame.rgb, frame.t_ns)
            if state == "frozen":
                raise DeviceLostError(self._frozen_text)
            if state == "live":
                intake.push_frame(frame.rgb, frame.t_ns)
            return state == "live"

        try:
            self._loop.run(accept, stop)
        finally:
            intake.end_video()
        self._health.report(self.name, "ended")

    def close(self) -> None:
        """Release the camera; `run` does it, so this is for a source that was never run."""
        self._loop.close()


def _refuse_what_is_no_camera(where: str) -> None:
    shown = safe_address(where)
    if not is_url(where):
        if Path(where).is_file():
            raise ConfigurationError(f"{where} is a media file, not a camera; use --input {where}")
        if Path(where).is_fifo():
            raise ConfigurationError(
                f"{where} is a pipe, not a camera; write what comes out of it to a file, and use --input FILE"
            )
    elif where.lower().startswith("file:"):
        raise ConfigurationError(f"{shown} is a media file, not a camera; use --input {shown[7:]}")
