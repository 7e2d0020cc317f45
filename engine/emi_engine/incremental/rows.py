"""Memory for what is known of each frame in a sliding window, addressed by the frame's number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rows"]

SPARE: Final = 4  # times a window: what slides is moved back to the front once in three windows


class Rows:
    """Several arrays that share one axis: a row for each frame, contiguous, in order.

    The rows in use slide along the memory, so that a range of frames is always a plain slice. The arrays are
    never reallocated, and moved seldom.
    """

    def __init__(self, capacity: int) -> None:
        """Room for a window of `capacity` frames."""
        self._size = max(SPARE * capacity, capacity + 16)
        self._arrays: list[NDArray[np.float32]] = []  # views with the frames' axis first
        self._offset = 0  # the row of frame number `start`
        self.start = 0  # the oldest frame's number
        self.stop = 0  # one past the newest frame's

    def array(self, planes: int, *width: int) -> NDArray[np.float32]:
        """A new array (planes, rows, *width) of zeros; called before the first frame."""
        made = np.zeros((planes, self._size, *width), np.float32)
        self._arrays.append(np.moveaxis(made, 1, 0))
        return made

    def columns(self, planes: int, height: int) -> NDArray[np.float32]:
        """A new array (planes, height, rows) of zeros, a column for each frame; likewise."""
        made = np.zeros((planes, height, self._size), np.float32)
        self._arrays.append(np.moveaxis(made, 2, 0))
        return made

    def at(self, start: int, stop: int) -> slice:
        """The rows of frames [start, stop)."""
        first = self._offset - self.start
        return slice(first + start, first + stop)

    def grow(self, stop: int) -> None:
        """Make room up to frame `stop`, exclusive; slices made before are stale afterwards."""
        count = self.stop - self.start
        if self._offset + stop - self.start > self._size:
            used = slice(self._offset, self._offset + count)
            for values in self._arrays:
                values[:count] = values[used].copy()
            self._offset = 0
        self.stop = stop

    def shrink(self, start: int) -> None:
        """Forget the frames before `start`."""
        self._offset += start - self.start
        self.start = start

    def restart(self, start: int) -> None:
        """Forget all frames; the next one has the number `start`."""
        self._offset, self.start, self.stop = 0, start, start
