"""Reading a camera in a thread of its own, because the call that reads it may hang for good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS, Clock
from emi_live.health import Health
from emi_live.sources.device import DeviceLostError
from emi_live.worker import Worker

__all__ = ["CameraPicture", "Capture", "Grabber"]

CLOSE_S: Final = 0.4  # a grab that hangs longer is left behind; it releases the device when it returns
BUFFERED_NS: Final = (
    5 * NS_PER_MS
)  # a first picture had so soon was waiting in a buffer, since nobody knows when
MAX_BUFFERED: Final = 64


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`; called from one thread."""

    def grab(self) -> bool:
        """Wait for the next picture; False when there is none."""
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


class Grabber:
    """One opened camera, drained as fast as it delivers; only the newest picture is kept.

    Opening happens in the thread too. `connect` raises `DeviceLostError` when it fails. Pictures replaced
    before they were taken are counted as `camera.overwritten`, damaged ones as `camera.damaged`, and those
    that had waited in a buffer when the device was opened as `camera.buffered`.
    """

    def __init__(self, connect: Callable[[], Capture], clock: Clock, health: Health) -> None:
        self._connect = connect
        self._clock = clock
        self._health = health
        self._changed = threading.Condition()
        self._newest: CameraPicture | None = None
        self._loss: str | None = None
        self._worker = Worker("camera-reader", self._read, Health(), on_exit=self._notice_exit)
        self._worker.start()

    def next(self, timeout_s: float) -> CameraPicture | None:
        """The newest picture not taken yet; None if there was none within `timeout_s`.

        Raises:
            DeviceLostError: the device could not be opened, or has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._loss is not None, timeout_s)
            picture, self._newest = self._newest, None
            if picture is None and self._loss is not None:
                raise DeviceLostError(self._loss)
            return picture

    def close(self) -> None:
        """Release the device, or leave that to the thread if it hangs."""
        self._worker.request_stop()
        self._worker.join(CLOSE_S)

    def _read(self, stop: threading.Event) -> None:
        try:
            capture = self._connect()
        except DeviceLostError as error:
            self._lose(str(error))
            return
        try:
            may_wait = MAX_BUFFERED  # pictures that may still have been waiting when the device was opened
            while not stop.is_set():
                before_ns = self._clock.now_ns()
                if not capture.grab():
                    self._lose("the camera gave no picture")
                    return
                t_ns = self._clock.now_ns()  # before decoding, which takes milliseconds
                may_wait = may_wait - 1 if t_ns - before_ns < BUFFERED_NS else 0
                if may_wait > 0:
                    self._health.count("camera.buffered")
                else:
                    self._offer(capture.rgb(), t_ns)
        finally:
            capture.release()

    def _offer(self, rgb: NDArray[np.uint8] | None, t_ns: int) -> None:
        if rgb is None:
            self._health.count("camera.damaged")
            return
        with self._changed:
            if self._newest is not None:
                self._health.count("camera.overwritten")
            self._newest = CameraPicture(rgb, t_ns)
            self._changed.notify_all()

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._loss = reason
            self._changed.notify_all()

    def _notice_exit(self) -> None:
        if self._loss is None:
            self._lose(str(self._worker.error or "the camera was closed"))
