"""The last few pictures of one camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.rings.base import Reader, Ring

__all__ = ["MAX_SIDE_PX", "Frame", "VideoReader", "VideoRing"]

MAX_SIDE_PX: Final = 16_384  # OpenCV and MediaPipe abort the process at 32,767


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture; the caller owns `rgb`, shape (height, width, 3), uint8."""

    rgb: NDArray[np.uint8]
    t_ns: int
    arrived_ns: int  # when it reached the engine
    index: int


class VideoRing(Ring):
    """The last `capacity` frames, in slots allocated once per picture size.

    One writer, any number of readers. In live use the newest frame wins: a reader gets the latest and counts
    those it never saw as `overwritten`. With `lossless`, a reader gets every frame in order and the writer
    waits for it.
    """

    def __init__(self, capacity: int = 8, *, lossless: bool = False) -> None:
        super().__init__("video", capacity, lossless=lossless)
        self._slots: list[NDArray[np.uint8]] = [np.empty((0, 0, 3), np.uint8)] * capacity
        self._stamps = [(0, 0)] * capacity  # captured, arrived

    def reader(self) -> VideoReader:
        """A new reader, positioned at the next frame to be written."""
        return VideoReader(self)

    def write(
        self, rgb: NDArray[np.uint8], t_ns: int, *, arrived_ns: int = 0, timeout_s: float | None = None
    ) -> None:
        """Copy one frame in, captured at `t_ns`. A write to a closed ring is ignored.

        Raises:
            StalledError: lossless, and a reader made no room within `timeout_s`.
        """
        with self._changed:
            if not self._wait_for_room(1, timeout_s):
                return
            slot = self._end % self._capacity
            if self._slots[slot].shape != rgb.shape:
                self._slots[slot] = np.empty(rgb.shape, np.uint8)
            np.copyto(self._slots[slot], rgb)
            self._stamps[slot] = (t_ns, arrived_ns)
            self._end += 1
            self._changed.notify_all()


class VideoReader(Reader):
    """One reader's position in a `VideoRing`; used by one thread."""

    def __init__(self, ring: VideoRing) -> None:
        super().__init__(ring)
        self._ring = ring
        self.overwritten = 0  # frames that a newer one replaced before they were read

    def read(self) -> Frame | None:
        """The next frame (lossless) or the newest (live); None when there is none unread. Never waits."""
        ring = self._ring
        with self._changed:
            if self.position >= ring._end:
                return None
            index = self.position if ring._lossless else ring._end - 1
            self.overwritten += index - self.position
            slot = index % ring._capacity
            frame = Frame(ring._slots[slot].copy(), *ring._stamps[slot], index)
            self.position = index + 1
            self._changed.notify_all()
            return frame
