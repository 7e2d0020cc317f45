"""Timing in turns: engines are called one after the other, so what else the machine does hits all alike."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # One timed call: what it took, in milliseconds.
    Meter = Callable[[], float]

__all__ = ["Turns", "take_turns", "wall_clock"]

WARM_UP: Final = 20  # calls of each before any is timed; fewer of what is slow
WARM_UP_S: Final = 2.0
LEAST_WARM_UP: Final = 3
LEAST: Final = 20  # timed calls of each, however slow


@dataclass(frozen=True, slots=True)
class Turns:
    """Milliseconds of each timed call, by name, all of the same number; and the number that was asked for."""

    ms: dict[str, list[float]]
    n: int
    asked: int


def wall_clock(call: Callable[[], object]) -> Meter:
    """The time of a call as Python sees it."""

    def meter() -> float:
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6

    return meter


def take_turns(
    meters: Mapping[str, Meter],
    n: int,
    *,
    gap_s: float = 0.0,
    budget_s: float = 60.0,
    idle: Callable[[float], object] | None = None,
) -> Turns:
    """Call each meter `n` times, in a new order at each turn, after a warm-up.

    Args:
        meters: by name.
        n: timed calls of each; fewer, but `LEAST`, where they would take more than `budget_s` without gaps.
        gap_s: rest before each timed call.
        budget_s: how long the work may take, roughly.
        idle: rests for so many seconds; default: the process waits.
    """
    rest = idle or threading.Event().wait  # never set: waiting on it is the gap
    one_turn_s = sum(_warm_up(meter) for meter in meters.values())
    runs = n if one_turn_s * n <= budget_s else min(n, max(LEAST, int(budget_s / one_turn_s)))
    names = list(meters)
    ms: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(0)
    for _ in range(runs):
        for index in order.permutation(len(names)):
            if gap_s:
                rest(gap_s)
            ms[names[index]].append(meters[names[index]]())
    return Turns(ms, runs, n)


def _warm_up(meter: Meter) -> float:
    """Call until it is warm; seconds of its fastest call."""
    taken: list[float] = []
    while len(taken) < LEAST_WARM_UP or (len(taken) < WARM_UP and sum(taken) < WARM_UP_S * 1e3):
        taken.append(meter())
    return min(taken) / 1e3
