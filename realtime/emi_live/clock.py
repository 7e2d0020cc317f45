"""The one clock of a running engine: integer nanoseconds that only go forward."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["NS_PER_MS", "NS_PER_S", "Clock", "MonotonicClock", "offset_ns", "seconds_to_ns"]

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
READINGS: Final = 7  # of two clocks; the one that was least interrupted counts


class Clock(Protocol):
    """Where "now" comes from. Capture times are stamps of this clock."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary origin; never decreases."""
        ...

    def wait_until(self, t_ns: int, stop: threading.Event) -> bool:
        """Wait for that time to come; False as soon as `stop` is set."""
        ...


class MonotonicClock:
    """The system's monotonic clock, the one that PortAudio and V4L2 stamps are mapped to."""

    def now_ns(self) -> int:
        """Nanoseconds of `time.monotonic_ns`."""
        return time.monotonic_ns()

    def wait_until(self, t_ns: int, stop: threading.Event) -> bool:
        """Wait on the event until `t_ns`."""
        remaining_s = (t_ns - self.now_ns()) / NS_PER_S
        return not (stop.wait(remaining_s) if remaining_s > 0 else stop.is_set())


def seconds_to_ns(seconds: float) -> int:
    """The nearest whole number of nanoseconds."""
    return round(seconds * NS_PER_S)


def offset_ns(other_ns: Callable[[], int], our_ns: Callable[[], int] = time.monotonic_ns) -> int:
    """Another clock minus ours, in nanoseconds.

    Of a few readings the one between the closest two readings of our clock is taken.
    """
    best: tuple[int, int] | None = None
    for _ in range(READINGS):
        before_ns = our_ns()
        there_ns = other_ns()
        after_ns = our_ns()
        found = (after_ns - before_ns, there_ns - (before_ns + after_ns) // 2)
        best = found if best is None else min(best, found)
    assert best is not None  # noqa: S101  # there is at least one reading
    return best[1]
