"""Waiting for something real to happen, with a limit and without guessing how long it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from emi_live.clock import MonotonicClock, seconds_to_ns


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return as soon as `condition` holds; fail after `timeout_s`."""
    clock, pause = MonotonicClock(), threading.Event()
    deadline_ns = clock.now_ns() + seconds_to_ns(timeout_s)
    while not condition():
        assert clock.now_ns() < deadline_ns, f"not within {timeout_s:g} s"
        pause.wait(0.02)
