"""Fixed-size buffers of time-stamped samples: one writer, many readers.

`AudioRing` holds the last seconds of one microphone, addressed by sample index, with the capture time of
every sample; `VideoRing` holds the last few frames of one camera. `Ring` is what both share: a writer
that may have to wait, readers with positions, progress, and an end.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_S
from emi_live.errors import StalledError

__all__ = [
    "MAX_SIDE_PX",
    "SAMPLE_RATE_HZ",
    "AudioBlock",
    "AudioReader",
    "AudioRing",
    "Frame",
    "Reader",
    "Ring",
    "VideoReader",
    "VideoRing",
]

UNKNOWN_NS: Final = -(2**62)  # before any capture time: the source has not said how far it has read


class Ring:
    """Positions and waiting, without the buffer. Items are counted from 0; `_end` is the next index.

    A lossless ring also keeps how far its source has read the stream (`advance`), since in a gap no item
    tells.
    """

    def __init__(self, what: str, capacity: int, *, lossless: bool) -> None:
        """Prepare a ring of `capacity` items; `what` names it in messages."""
        self._what = what
        self._capacity = capacity
        self._lossless = lossless
        self._changed = threading.Condition()
        self._readers: list[Reader] = []
        self._end = 0
        self._closed = False
        self._progress_ns = UNKNOWN_NS  # nothing captured before this will be written any more

    @property
    def capacity(self) -> int:
        """Items kept."""
        return self._capacity

    def advance(self, t_ns: int) -> None:
        """Nothing captured before `t_ns` will be written any more; any thread may call.

        Wakes readers that have read everything. Without `lossless` no reader needs it, and it is not kept.
        """
        with self._changed:
            if self._lossless and not self._closed and t_ns > self._progress_ns:
                self._progress_ns = t_ns
                self._changed.notify_all()

    def close(self) -> None:
        """No more items will come; readers may still drain what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for_room(self, amount: int, timeout_s: float | None) -> bool:
        """If lossless, wait until all readers have left room for `amount`; False: the ring is closed.

        Raises:
            StalledError: a reader made no room in time.
        """
        if self._lossless and not self._changed.wait_for(
            lambda: self._closed or self._has_room(amount), timeout_s
        ):
            raise StalledError(f"the {self._what} ring has been full for {timeout_s:g} s")
        return not self._closed

    def _has_room(self, amount: int) -> bool:
        slowest = min((reader.position for reader in self._readers), default=self._end)
        return self._end + amount - slowest <= self._capacity


class Reader:
    """One reader's position in a ring, at first at the next item to be written; used by one thread."""

    def __init__(self, ring: Ring, *, loose: bool = False) -> None:
        """Join the ring; the writer never waits for a `loose` reader, which loses what is overwritten."""
        self._base = ring
        self._changed = ring._changed
        with self._changed:
            self.position = ring._end  # index of the next item to read
            self._told_ns = UNKNOWN_NS  # the progress at the end of the last wait
            if not loose:
                ring._readers.append(self)

    @property
    def backlog(self) -> int:
        """Items written but not read yet."""
        with self._changed:
            return self._base._end - self.position

    @property
    def ended(self) -> bool:
        """Whether the ring is closed and everything in it has been read."""
        with self._changed:
            return self._base._closed and self.position >= self._base._end

    @property
    def progress_ns(self) -> int | None:
        """Everything to come was captured at or after this; None if unknown, or if unread items are left."""
        with self._changed:
            known = self._base._progress_ns
            return None if known == UNKNOWN_NS or self._base._end > self.position else known

    def wait(self, timeout_s: float) -> bool:
        """Wait for something to read, for progress, or for the end; False after `timeout_s`."""
        with self._changed:
            base = self._base
            woken = self._changed.wait_for(
                lambda: base._closed or base._end > self.position or base._progress_ns > self._told_ns,
                timeout_s,
            )
            self._told_ns = base._progress_ns
            return woken

    def close(self) -> None:
        """Leave the ring; its writer no longer waits for this reader. A second call does nothing."""
        with self._changed:
            if self in self._base._readers:
                self._base._readers.remove(self)
            self._changed.notify_all()


SAMPLE_RATE_HZ: Final = 16_000
GAP_NS: Final = 60_000_000  # a stamp this far from where the last block ended is a gap, not jitter
DRIFT_NS: Final = 5_000_000  # clock drift is followed once it has grown to this


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """A run of samples without a gap inside, as a device, a decoder, the resampler or a ring gives it.

    Samples are float32 in [-1, 1]. Their shape is (n, channels) before the intake and (n,) after it. The
    receiver owns the array, except where the resampler had nothing to do and handed on its input.
    """

    samples: NDArray[np.float32]
    t_ns: int  # capture time of the first sample; of a file: its media time
    rate_hz: int = SAMPLE_RATE_HZ
    start: int = 0  # sample index of the first sample in its stream
    gap: bool = False  # samples before this block never came
    lost: int = 0  # samples before this block that came, and were overwritten before they were read

    @property
    def end_ns(self) -> int:
        """Capture time at which the last sample ends."""
        return self.t_ns + len(self.samples) * NS_PER_S // self.rate_hz

    @property
    def gap_before(self) -> bool:
        """Whether samples are missing between the previous block and this one."""
        return self.gap or self.lost > 0


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
        """A new reader, positioned at the next sample to be written; see `Reader` for `loose`."""
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

        With `seamless`, time that passed since the last sample does not count as a gap.

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
                _time_of(anchor, self.position),
                start=self.position,
                gap=anchor.gap and anchor.index == self.position,
                lost=overrun,
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


MAX_SIDE_PX: Final = 16_384  # OpenCV and MediaPipe abort the process at 32,767


@dataclass(frozen=True, slots=True)
class Frame:
    """One RGB frame, as a camera or a ring gives it.

    `rgb` has the shape (height, width, 3). A camera's belongs to the receiver; a ring's is read-only, because
    all its readers get the same array.
    """

    rgb: NDArray[np.uint8]
    t_ns: int  # capture time
    arrived_ns: int = 0  # when it reached the engine; set by the ring
    index: int = 0  # position in the ring's stream


class VideoRing(Ring):
    """The last `capacity` frames. None is copied on its way out, and none on its way in that was given up.

    One writer, any number of readers. In live use the newest frame wins: a reader gets the latest and counts
    those that it missed as `overwritten`. With `lossless`, a reader gets every frame in order and the writer
    waits for it.
    """

    def __init__(self, capacity: int = 8, *, lossless: bool = False) -> None:
        super().__init__("video", capacity, lossless=lossless)
        self._frames: deque[Frame] = deque(maxlen=capacity)

    def reader(self, *, loose: bool = False) -> VideoReader:
        """A new reader, positioned at the next frame to be written; see `Reader` for `loose`."""
        return VideoReader(self, loose=loose)

    def write(
        self,
        rgb: NDArray[np.uint8],
        t_ns: int,
        *,
        arrived_ns: int = 0,
        timeout_s: float | None = None,
        given_up: bool = False,
    ) -> None:
        """Add one frame, captured at `t_ns`. A write to a closed ring is ignored.

        Args:
            rgb: shape (height, width, 3).
            t_ns: capture time.
            arrived_ns: when it reached the engine.
            timeout_s: how long to wait for room, if lossless; None: without limit.
            given_up: the caller never changes the array again, so it is kept as it is; otherwise, and if its
                rows are not in C order, a copy is.

        Raises:
            StalledError: lossless, and a reader made no room within `timeout_s`.
        """
        kept = np.ascontiguousarray(rgb) if given_up else rgb.copy()
        kept = kept.view()
        kept.flags.writeable = False
        with self._changed:
            if not self._wait_for_room(1, timeout_s):
                return
            self._frames.append(Frame(kept, t_ns, arrived_ns, self._end))
            self._end += 1
            self._changed.notify_all()


class VideoReader(Reader):
    """One reader's position in a `VideoRing`; used by one thread."""

    def __init__(self, ring: VideoRing, *, loose: bool = False) -> None:
        super().__init__(ring, loose=loose)
        self._ring = ring
        self._newest_only = loose or not ring._lossless
        self.overwritten = 0  # frames that a newer one replaced before they were read

    def read(self) -> Frame | None:
        """The next frame (lossless) or the newest (live, loose); None without an unread one. Never waits."""
        ring = self._ring
        with self._changed:
            if self.position >= ring._end:
                return None
            index = ring._end - 1 if self._newest_only else self.position
            self.overwritten += index - self.position
            frame = ring._frames[index - ring._end]
            self.position = index + 1
            self._changed.notify_all()
            return frame
