"""The last few pictures of one camera."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emi_live.errors import StalledError

__all__ = ["Frame", "VideoReader", "VideoRing"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture; the caller owns `rgb`, shape (height, width, 3), uint8."""

    rgb: NDArray[np.uint8]
    t_ns: int
    index: int


class VideoRing:
    """The last `capacity` frames, in slots allocated once per picture size.

    One writer, any number of readers. In live use the newest frame wins: a reader gets the latest and counts
    those it never saw as `overwritten`. With `lossless`, a reader gets every frame in order and the writer
    waits for it.
    """

    def __init__(self, capacity: int = 8, *, lossless: bool = False) -> None:
        self._capacity = capacity
        self._lossless = lossless
        self._changed = threading.Condition()
        self._slots: list[NDArray[np.uint8]] = [np.empty((0, 0, 3), np.uint8)] * capacity
        self._stamps = [0] * capacity
        self._readers: list[VideoReader] = []
        self._end = 0
        self._closed = False

    def reader(self) -> VideoReader:
        """A new reader, positioned at the next frame to be written."""
        with self._changed:
            reader = VideoReader(self, self._changed, self._end)
            self._readers.append(reader)
            return reader

    def write(self, rgb: NDArray[np.uint8], t_ns: int, *, timeout_s: float | None = None) -> None:
        """Copy one frame in, captured at `t_ns`. A write to a closed ring is ignored.

        Raises:
            StalledError: lossless, and a reader made no room within `timeout_s`.
        """
        with self._changed:
            if self._lossless and not self._changed.wait_for(
                lambda: self._closed or self._end - self._slowest() < self._capacity, timeout_s
            ):
                raise StalledError(
                    f"the video ring has been full for {timeout_s:g} s: consume estimates() while pushing, "
                    "or use mode='live'"
                )
            if self._closed:
                return
            slot = self._end % self._capacity
            if self._slots[slot].shape != rgb.shape:
                self._slots[slot] = np.empty(rgb.shape, np.uint8)
            np.copyto(self._slots[slot], rgb)
            self._stamps[slot] = t_ns
            self._end += 1
            self._changed.notify_all()

    def close(self) -> None:
        """No more frames will come; readers may still drain what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _slowest(self) -> int:
        return min((reader.position for reader in self._readers), default=self._end)


class VideoReader:
    """One reader's position in a `VideoRing`; used by one thread."""

    def __init__(self, ring: VideoRing, changed: threading.Condition, position: int) -> None:
        self._ring = ring
        self._changed = changed
        self.position = position
        self.overwritten = 0  # frames that a newer one replaced before they were read

    @property
    def ended(self) -> bool:
        """Whether the ring is closed and everything in it has been read."""
        with self._changed:
            return self._ring._closed and self.position >= self._ring._end

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is a frame to read or the ring is closed; False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._ring._closed or self._ring._end > self.position, timeout_s
            )

    def read(self) -> Frame | None:
        """The next frame (lossless) or the newest (live); None when there is none unread. Never waits."""
        ring = self._ring
        with self._changed:
            if self.position >= ring._end:
                return None
            index = self.position if ring._lossless else ring._end - 1
            self.overwritten += index - self.position
            slot = index % ring._capacity
            frame = Frame(ring._slots[slot].copy(), ring._stamps[slot], index)
            self.position = index + 1
            self._changed.notify_all()
            return frame
