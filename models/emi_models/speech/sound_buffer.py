"""The sound of an utterance that may still be recognised, and where there was voice in it: always bounded."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SoundBuffer"]

RATE_HZ: Final = 16_000


class SoundBuffer:
    """Samples from `start_s` on, at most `limit_s` seconds of them, in one preallocated array.

    Times are seconds since the first sample of the utterance. It keeps a note of voice for as long.
    """

    def __init__(self, limit_s: float) -> None:
        self._samples = np.zeros(round(limit_s * RATE_HZ), np.float32)
        self.clear()

    def clear(self) -> None:
        """Begin a new utterance."""
        self._size = 0
        self._start = 0  # samples of the utterance before the first in the buffer
        self._voice: deque[tuple[int, int]] = deque()  # spans of samples of the utterance, in order

    @property
    def start_s(self) -> float:
        """The time of the first sample."""
        return self._start / RATE_HZ

    @property
    def end_s(self) -> float:
        """The time after the last sample."""
        return (self._start + self._size) / RATE_HZ

    @property
    def duration_s(self) -> float:
        """How much it holds."""
        return self._size / RATE_HZ

    @property
    def room(self) -> int:
        """How many samples it takes until it is full."""
        return self._samples.size - self._size

    @property
    def samples(self) -> NDArray[np.float32]:
        """What it holds, shape (n,): a view, valid until the next change."""
        return self._samples[: self._size]

    def append(self, samples: NDArray[np.float32], voiced: int) -> None:
        """Add samples, shape (n,), n at most `room`, the last `voiced` of which are voice.

        Raises:
            ValueError: there is no room for them.
        """
        if samples.size > self.room:
            raise ValueError(f"{samples.size} samples for a buffer with room for {self.room}")
        self._samples[self._size : self._size + samples.size] = samples
        self._size += samples.size
        if voiced:
            end = self._start + self._size
            begin = end - voiced
            if self._voice and self._voice[-1][1] >= begin:
                begin = self._voice.pop()[0]
            self._voice.append((begin, end))

    def cut(self, at_s: float) -> None:
        """Drop what comes before `at_s`, to the nearest sample; what lies outside is moved to the border."""
        count = min(max(0, round(at_s * RATE_HZ) - self._start), self._size)
        self._samples[: self._size - count] = self._samples[count : self._size].copy()
        self._size -= count
        self._start += count
        while self._voice and self._voice[0][1] <= self._start:
            self._voice.popleft()

    def any_between(self, start_s: float, end_s: float) -> bool:
        """Whether there was voice in that span, as far as it is in the buffer."""
        start, end = start_s * RATE_HZ, end_s * RATE_HZ
        return any(begin < end and stop > start for begin, stop in self._voice)
