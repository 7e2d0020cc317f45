"""Three clocks to hear a clip by: what computing costs is ignored, added up, or passes.

`unaware`: nothing takes time. What is left is what the policy itself waits for, the same on any machine.
`aware`: the time that each step took moves a simulated clock, which jumps over waiting: as in real use,
what was said meanwhile is what the next step finds, but a clip takes no longer than its computing.
`real`: the wall's clock, with nothing simulated.

Source: "computationally unaware" simulation, Macháček et al. 2023 (arXiv:2307.14743, §4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeVar, get_args

from emi_live.clock import Clock, MonotonicClock

__all__ = ["CLOCKS", "Aware", "ClockName", "Pace", "Real", "Timer", "Unaware", "make_pace"]

ClockName = Literal["unaware", "aware", "real"]
CLOCKS: Final[tuple[ClockName, ...]] = get_args(ClockName)

Timer = Callable[[], int]  # nanoseconds that work is timed by
Result = TypeVar("Result")


class Pace(Protocol):
    """Time during one clip, in nanoseconds since its first sample was captured."""

    @property
    def timer(self) -> Timer:
        """By what work is timed."""
        ...

    def now_ns(self) -> int:
        """The time."""
        ...

    def spend(self, work_ns: int) -> None:
        """Work took so long."""
        ...

    def wait_until(self, t_ns: int) -> None:
        """Nothing is to be done until then."""
        ...


class Unaware:
    """Work takes no time."""

    def __init__(self, timer: Timer = time.perf_counter_ns) -> None:
        self.timer = timer
        self._now_ns = 0

    def now_ns(self) -> int:
        """The time at which the newest sample was captured."""
        return self._now_ns

    def spend(self, work_ns: int) -> None:
        """Nothing happens."""

    def wait_until(self, t_ns: int) -> None:
        """Jump."""
        self._now_ns = max(self._now_ns, t_ns)


class Aware(Unaware):
    """Work takes the time that it took; waiting takes none."""

    def spend(self, work_ns: int) -> None:
        """The clock goes on by that much."""
        self._now_ns += work_ns


class Real:
    """The wall's clock, from now on."""

    def __init__(self, clock: Clock | None = None, timer: Timer = time.perf_counter_ns) -> None:
        self.timer = timer
        self._clock = clock or MonotonicClock()
        self._start_ns = self._clock.now_ns()
        self._never = threading.Event()

    def now_ns(self) -> int:
        """Since it was made."""
        return self._clock.now_ns() - self._start_ns

    def spend(self, work_ns: int) -> None:
        """It has passed already."""

    def wait_until(self, t_ns: int) -> None:
        """Wait."""
        self._clock.wait_until(self._start_ns + t_ns, self._never)


def make_pace(name: ClockName) -> Pace:
    """The clock of that name, which begins now."""
    return Real() if name == "real" else Aware() if name == "aware" else Unaware()
