"""When each moment of an utterance was captured: sound cards' clocks drift, so it is noted chunk by chunk."""

from __future__ import annotations

from collections import deque
from typing import Final

from emi_live.clock import NS_PER_S
from emi_live.rings.audio import SAMPLE_RATE_HZ

__all__ = ["Timeline"]

KEPT_SAMPLES: Final = 40 * SAMPLE_RATE_HZ  # longer than a recogniser's buffer


class Timeline:
    """Maps seconds of an utterance, counted in samples, to capture time."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start an utterance."""
        self._size = 0
        self._ends: deque[tuple[int, int]] = deque()  # samples so far, the capture time at which they end

    def add(self, samples: int, end_ns: int) -> None:
        """The next samples end at `end_ns`."""
        self._size += samples
        self._ends.append((self._size, end_ns))
        while self._ends[0][0] < self._size - KEPT_SAMPLES:
            self._ends.popleft()

    def at(self, seconds: float) -> int:
        """The capture time of a moment, in nanoseconds."""
        sample = round(seconds * SAMPLE_RATE_HZ)
        after = next((noted for noted in self._ends if noted[0] >= sample), self._ends[-1])
        return after[1] + (sample - after[0]) * NS_PER_S // SAMPLE_RATE_HZ
