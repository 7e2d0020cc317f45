"""The last seconds of one microphone, addressed by sample index, with the capture time of every sample."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.rings.base import Reader, Ring

__all__ = ["SAMPLE_RATE_HZ", "AudioBlock", "AudioReader", "AudioRing"]

SAMPLE_RATE_HZ: Final = 16_000
GAP_NS: Final = 60_000_000  # a stamp this far from where the last block ended is a gap, not jitter
DRIFT_NS: Final = 5_000_000  # clock drift is followed once it has grown to this


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """A run of samples without a gap inside. The caller owns `samples`, shape (n,), float32 in [-1, 1]."""

    samples: NDArray[np.float32]
    start: int  # sample index of the first sample
    t_ns: int  # capture time of the first sample
    gap_before: bool  # samples are missing between the previous block and this one

    @property
    def end_ns(self) -> int:
        """Capture time at which the last sample ends."""
        return self.t_ns + self.samples.size * NS_PER_S // SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class _Anchor:
    """From sample `index` on, time runs from `t_ns` at the nominal rate."""

    index: int
    t_ns: int
    gap: bool


class AudioRing(Ring):
    """The last `capacity_s` seconds of 16 kHz mono sound.

    One writer, any number of readers, each with its own position. In live use the writer never waits: past
    its capacity the oldest samples are overwritten, a reader that had not read them skips ahead, counts them
    as `lost` and gets its next block marked `gap_before`. With `lossless`, the writer waits for the slowest
    reader instead.
    """

    def __init__(self, capacity_s: float = 30.0, *, lossless: bool = False) -> None:
        super().__init__("audio", round(capacity_s * SAMPLE_RATE_HZ), lossless=lossless)
        self._buffer = np.zeros(self._capacity, dtype=np.float32)
        self._anchors: deque[_Anchor] = deque()
        self._arrivals: deque[tuple[int, int]] = deque()  # of each write: the index after it, when it came

    def reader(self, *, loose: bool = False) -> AudioReader:
        """A new reader, positioned at the next sample to be written; for a `loose` one no writer waits."""
        return AudioReader(self, loose=loose)

    def write(
        self,
        samples: NDArray[np.float32],
        t_ns: int,
        *,
        arrived_ns: int = 0,
        timeout_s: float | None = None,
        seamless: bool = False,
    ) -> None:
        """Append samples, shape (n,), the first captured at `t_ns`. A write to a closed ring is ignored.

        With `seamless`, time that passed since the last sample is no gap: nothing was to be heard in it.

        Raises:
            StalledError: lossless, and a reader made no room within `timeout_s`.
        """
        for offset in range(0, samples.size, self.capacity // 2):
            part = samples[offset : offset + self.capacity // 2]
            start_ns = t_ns + offset * NS_PER_S // SAMPLE_RATE_HZ
            self._write_part(part, start_ns, arrived_ns, timeout_s, seamless)

    def _write_part(
        self, part: NDArray[np.float32], t_ns: int, arrived_ns: int, timeout_s: float | None, seamless: bool
    ) -> None:
        with self._changed:
            if not self._wait_for_room(part.size, timeout_s):
                return
            self._anchor(t_ns, seamless)
            first = self._end % self.capacity
            head = min(part.size, self.capacity - first)
            self._buffer[first : first + head] = part[:head]
            self._buffer[: part.size - head] = part[head:]
            self._end += part.size
            while len(self._anchors) > 1 and self._anchors[1].index <= self._end - self.capacity:
                self._anchors.popleft()
            self._arrivals.append((self._end, arrived_ns))
            while self._arrivals[0][0] <= self._end - self.capacity:
                self._arrivals.popleft()
            self._changed.notify_all()

    def _anchor(self, t_ns: int, seamless: bool) -> None:
        if not self._anchors:
            self._anchors.append(_Anchor(self._end, t_ns, gap=False))
            return
        error_ns = t_ns - _time_of(self._anchors[-1], self._end)
        if abs(error_ns) >= GAP_NS:
            self._anchors.append(_Anchor(self._end, t_ns, gap=error_ns > 0 and not seamless))
        elif abs(error_ns) >= DRIFT_NS:
            self._anchors.append(_Anchor(self._end, t_ns, gap=False))

    def _copy(self, start: int, stop: int) -> NDArray[np.float32]:
        first = start % self.capacity
        head = min(stop - start, self.capacity - first)
        return np.concatenate((self._buffer[first : first + head], self._buffer[: stop - start - head]))


class AudioReader(Reader):
    """One reader's position in an `AudioRing`; used by one thread."""

    def __init__(self, ring: AudioRing, *, loose: bool = False) -> None:
        super().__init__(ring, loose=loose)
        self._ring = ring
        self.lost = 0  # samples overwritten before they were read

    def read(self, max_samples: int) -> AudioBlock | None:
        """Copy up to `max_samples` of the oldest unread samples; None when there are none. Never waits."""
        ring = self._ring
        with self._changed:
            overrun = max(0, ring._end - ring.capacity - self.position)
            self.lost += overrun
            self.position += overrun
            if self.position >= ring._end:
                return None
            anchor, limit = _anchor_at(ring._anchors, self.position)
            stop = min(ring._end, self.position + max_samples, limit)
            block = AudioBlock(
                ring._copy(self.position, stop),
                self.position,
                _time_of(anchor, self.position),
                gap_before=overrun > 0 or (anchor.gap and anchor.index == self.position),
            )
            self.position = stop
            self._changed.notify_all()
            return block

    def arrived_ns(self, index: int) -> int:
        """When the sample of that index, which the ring still holds, reached the engine."""
        with self._changed:
            found = 0
            for after, arrived_ns in reversed(self._ring._arrivals):
                if after <= index:
                    break
                found = arrived_ns
            return found


def _time_of(anchor: _Anchor, index: int) -> int:
    return anchor.t_ns + (index - anchor.index) * NS_PER_S // SAMPLE_RATE_HZ


def _anchor_at(anchors: deque[_Anchor], index: int) -> tuple[_Anchor, int]:
    """The anchor in force at `index`, and the index at which the next one takes over."""
    current, limit = anchors[0], 2**62
    for anchor in anchors:
        if anchor.index > index:
            limit = anchor.index
            break
        current = anchor
    return current, limit
