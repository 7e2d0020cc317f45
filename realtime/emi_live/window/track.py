"""A time-ordered store of feature frames that forgets what no window can still ask for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emi_models.stream import FrameRun

__all__ = ["FrameTrack"]


class FrameTrack:
    """Frames of one modality with their capture times, oldest first, numbered from 0 as they came.

    Backed by one array of twice the needed size, so that forgetting costs a copy only now and then.
    """

    def __init__(self, dim: int, frames: int, *, empty: bool = False) -> None:
        """Room for `frames` of the window at first; `empty` counts frames and keeps zeros in their place."""
        self._empty = empty
        self._values = np.zeros((max(2 * frames, 16), dim), np.float32)
        self._times = np.zeros(len(self._values), np.int64)
        self._first = 0
        self._last = 0
        self._number = 0  # of the frame at `_first`

    @property
    def newest_ns(self) -> int | None:
        """Capture time of the newest frame; None when empty."""
        return int(self._times[self._last - 1]) if self._last > self._first else None

    def append(self, times_ns: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add frames, times (n,) increasing and newer than all before, values (n, dim)."""
        count = len(times_ns)
        if self._last + count > len(self._times):
            self._make_room(count)
        self._times[self._last : self._last + count] = times_ns
        if not self._empty:
            self._values[self._last : self._last + count] = values
        self._last += count

    def replace_from(self, t_ns: int, times_ns: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add frames as `append` does, in place of all that were captured after `t_ns`.

        If there are any, all frames get fresh numbers, and one is left out: a run of consecutive numbers
        shares none with the runs before.
        """
        count = self._last - self._first
        kept = int(np.searchsorted(self._times[self._first : self._last], t_ns, side="right"))
        if kept < count:
            self._number += count + 1
            self._last = self._first + kept
        self.append(times_ns, values)

    def forget_until(self, t_ns: int) -> None:
        """Drop frames captured at or before `t_ns`."""
        forgotten = int(np.searchsorted(self._times[self._first : self._last], t_ns, side="right"))
        self._first += forgotten
        self._number += forgotten

    def between(self, after_ns: int, until_ns: int) -> tuple[NDArray[np.int64], FrameRun]:
        """Times (n,) and values (n, dim) of `after_ns < t <= until_ns`: views, valid until `append`."""
        times = self._times[self._first : self._last]
        start, stop = np.searchsorted(times, [after_ns, until_ns], side="right")
        rows = slice(self._first + start, self._first + stop)
        return self._times[rows], FrameRun(self._number + int(start), self._values[rows])

    def _make_room(self, count: int) -> None:
        kept = self._last - self._first
        size = len(self._times)
        while size < 2 * (kept + count):
            size *= 2
        times, values = self._times[self._first : self._last], self._values[self._first : self._last]
        self._times = np.concatenate((times, np.zeros(size - kept, np.int64)))
        self._values = np.concatenate((values, np.zeros((size - kept, values.shape[1]), np.float32)))
        self._first, self._last = 0, kept
