"""Rhythm: how regularly frames repeat, four to eight times a second, as in laughing and sobbing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LONGEST_PERIOD", "SHORTEST_PERIOD", "Rhythm"]

# In frames of 20 ms. Provine & Yong 1991 give 210 ms between notes of laughter; recordings of laughing
# people were between 120 and 260 ms (docs/decisions/0046-rhythm-of-laughter.md).
SHORTEST_PERIOD: Final = 6
LONGEST_PERIOD: Final = 13
LEAST_LAG: Final = 2
MEMORY_FRAMES: Final = 25  # 0.5 s


class Rhythm:
    """Compares each frame with those up to 13 frames before it. One thread at a time.

    For each lag, the squared difference is averaged over the last half second (an exponential mean). If
    frames that are a period apart are alike and frames that are less apart are not, something repeats. Only
    differences count, so neither a gain nor a constant colour of the sound changes the result. Each frame
    takes the same work and depends on earlier frames alone.
    """

    def __init__(self, width: int, floor: float) -> None:
        """For frames of `width` values; squared differences far below `floor` are no rhythm."""
        self._floor = floor
        self._keep = math.exp(-1 / MEMORY_FRAMES)
        self._lags = np.arange(LEAST_LAG, LONGEST_PERIOD + 1)
        self._past = np.zeros((LONGEST_PERIOD, width))
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far."""
        self._count = 0
        self._differences = np.zeros(self._lags.size)

    def push(self, frame: NDArray[np.floating]) -> float:
        """The next frame, (width,): 0 without any rhythm, up to 1 if frames repeat exactly."""
        if self._count >= LONGEST_PERIOD:
            earlier = self._past[(self._count - self._lags) % LONGEST_PERIOD]
            self._differences *= self._keep
            self._differences += (1 - self._keep) * np.square(earlier - frame).mean(axis=1)
        self._past[self._count % LONGEST_PERIOD] = frame
        self._count += 1
        sums = self._differences + self._floor
        first = SHORTEST_PERIOD - LEAST_LAG
        # The largest difference at any shorter lag, for each period.
        largest = np.maximum.accumulate(sums)[first - 1 : -1]
        return max(0.0, 1.0 - float((sums[first:] / largest).min()))
