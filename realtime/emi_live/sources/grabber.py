"""Reading a camera in a thread of its own, because the call that reads it may hang for good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS, NS_PER_S, Clock
from emi_live.errors import SourceError
from emi_live.health import Health
from emi_live.sources.device import DeviceLostError, FeedEndedError
from emi_live.worker import Worker

__all__ = ["CameraPicture", "Capture", "Grabber"]

CLOSE_S: Final = 0.4  # a grab that hangs longer is left behind; it releases the device when it returns
BUFFERED_NS: Final = (
    5 * NS_PER_MS
)  # a first picture had so soon was waiting in a buffer, since nobody knows when
MAX_BUFFERED: Final = 64
MAX_LAG_NS: Final = NS_PER_S // 2  # a recording that comes later than this is not hurried to catch up
MAX_STILL_NS: Final = 120 * NS_PER_S  # a longer step between two pictures is a mistake of their stamps
# A camera may send faster than its stamps say, and a server what it holds; nobody sends a minute eight times
# as fast but a server that holds all of it.
FAST_NS: Final = 60 * NS_PER_S
FAST: Final = 8


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`; called from one thread."""

    @property
    def length_ns(self) -> int:
        """How long it is, if it is a recording that says so; 0 for a camera."""
        ...

    @property
    def media_ns(self) -> int | None:
        """When the picture grabbed last is due, from the first one on; None if the stream does not say."""
        ...

    def grab(self) -> bool:
        """Wait for the next picture; False when there is none.

        Raises:
            DeviceLostError: there will be none, and the message says why.
        """
        ...

    def rgb(self) -> NDArray[np.uint8] | None:
        """The picture grabbed last, shape (height, width, 3), owned by the caller; None if it is damaged."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


@dataclass(frozen=True, slots=True)
class CameraPicture:
    """One picture, RGB, shape (height, width, 3), and when it was grabbed."""

    rgb: NDArray[np.uint8]
    t_ns: int
    recorded: bool = False  # of a recording, in which nothing need move


class Pacer:
    """Tells a recording from a camera, and when a picture of a recording is due. Pure logic.

    A recording states its length, or comes far faster than its stamps. A stream that goes on past the length
    that it stated is a camera after all.
    """

    def __init__(self) -> None:
        self._start_ns: int | None = None  # when media time 0 came, or is to be thought to have come
        self._fast = False

    def due_ns(self, media_ns: int | None, length_ns: int, now_ns: int) -> int | None:
        """When to show the picture that came at `now_ns`; None for a camera's, to be shown at once."""
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
    """One opened camera, drained as fast as it delivers; only the newest picture is kept.

    Opening happens in the thread too. `connect` raises `DeviceLostError` when it fails. Pictures replaced
    before they were taken are counted as `camera.overwritten`, damaged ones as `camera.damaged`, and those
    that had waited in a buffer when the device was opened as `camera.buffered`. More than `max_damaged`
    damaged ones in a row are a loss.

    A recording is played at its own pace in place of that, and ends with `FeedEndedError`.
    """

    def __init__(
        self, connect: Callable[[], Capture], clock: Clock, health: Health, *, max_damaged: int = 30
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._health = health
        self._changed = threading.Condition()
        self._newest: CameraPicture | None = None
        self._loss: DeviceLostError | SourceError | None = None
        self._max_damaged = max_damaged
        self._damaged = 0  # in a row
        self.recorded = False
        self._worker = Worker("camera-reader", self._read, Health(), on_exit=self._notice_exit)
        self._worker.start()

    def next(self, timeout_s: float) -> CameraPicture | None:
        """The newest picture not taken yet; None if there was none within `timeout_s`.

        Raises:
            DeviceLostError: the device could not be opened, or has ended.
            SourceError: a recording is broken off.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._loss is not None, timeout_s)
            picture, self._newest = self._newest, None
            if picture is None and self._loss is not None:
                raise self._loss
            return picture

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
            may_wait = MAX_BUFFERED  # pictures that may still have been waiting when the device was opened
            while not stop.is_set():
                before_ns = self._clock.now_ns()
                if not capture.grab():
                    raise DeviceLostError("the camera gave no picture")
                t_ns = self._clock.now_ns()  # before decoding, which takes milliseconds
                due_ns = pacer.due_ns(capture.media_ns, capture.length_ns, t_ns)
                self.recorded = due_ns is not None
                may_wait = may_wait - 1 if t_ns - before_ns < BUFFERED_NS else 0
                if due_ns is not None:
                    self._clock.wait_until(due_ns, stop)
                    self._offer(capture.rgb(), self._clock.now_ns(), recorded=True)
                elif may_wait > 0:
                    self._health.count("camera.buffered")
                else:
                    self._offer(capture.rgb(), t_ns)
        except DeviceLostError as error:
            self._lose(_end_of_recording(capture, error) if self.recorded else error)
        finally:
            capture.release()

    def _offer(self, rgb: NDArray[np.uint8] | None, t_ns: int, *, recorded: bool = False) -> None:
        if rgb is None:
            self._health.count("camera.damaged")
            self._damaged += 1
            if self._damaged > self._max_damaged:
                raise DeviceLostError(f"{self._damaged} damaged pictures in a row")
            return
        self._damaged = 0
        with self._changed:
            if self._newest is not None:
                self._health.count("camera.overwritten")
            self._newest = CameraPicture(rgb, t_ns, recorded)
            self._changed.notify_all()

    def _lose(self, reason: DeviceLostError | SourceError) -> None:
        with self._changed:
            self._loss = reason
            self._changed.notify_all()

    def _notice_exit(self) -> None:
        if self._loss is None:
            self._lose(DeviceLostError(str(self._worker.error or "the camera was closed")))


def _end_of_recording(capture: Capture, reason: DeviceLostError) -> DeviceLostError | SourceError:
    """The end, or that there should be more: some containers only estimate their length."""
    end_s, length_s = (capture.media_ns or 0) / NS_PER_S, capture.length_ns / NS_PER_S
    if length_s - end_s <= max(1.0, 0.05 * length_s):
        return FeedEndedError("the recording has ended")
    return SourceError(f"the recording breaks off at {end_s:.1f} s of {length_s:.1f} s ({reason})")
