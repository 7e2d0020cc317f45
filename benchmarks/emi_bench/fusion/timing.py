"""Timing: calls in turns, the GPU's own time by CUDA events, and the rates of a device.

Engines are called in turns, so that other work on the machine affects all of them alike. The CUDA part has
not been run on a GPU yet.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from emi_bench.fusion.report import DeviceRates
from emi_engine.protocol import torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emi_bench.fusion.run import Enqueues
    from emi_bench.fusion.settings import Where
    from emi_engine.protocol import Precision

    Meter = Callable[[], float]

__all__ = [
    "Timings",
    "between_events",
    "device_clock",
    "measure_rates",
    "time_in_turns",
    "wall_clock",
]

WARM_UP: Final = 20  # calls of each before any is timed; fewer if they are slow
WARM_UP_S: Final = 2.0
LEAST_WARM_UP: Final = 3
LEAST: Final = 20  # timed calls of each, however slow
SIZES: Final = {"cpu": 1024, "cuda": 8192}  # of the square matrices: large enough to keep every core busy
COPY_BYTES: Final = {"cpu": 2**27, "cuda": 2**29}  # larger than caches
RUNS: Final = 10  # the fastest counts, because a floor is the best possible time


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of each timed call by name, the same number for each; and the number asked for."""

    ms: dict[str, list[float]]
    n: int
    asked: int


def wall_clock(call: Callable[[], object]) -> Meter:
    """A meter: the time of a call, measured by Python."""

    def meter() -> float:
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6

    return meter


def time_in_turns(
    meters: Mapping[str, Meter],
    n: int,
    *,
    gap_s: float = 0.0,
    budget_s: float = 60.0,
    idle: Callable[[float], object] | None = None,
) -> Timings:
    """Call each meter `n` times, in a new order at each turn, after a warm-up.

    Args:
        meters: by name.
        n: timed calls of each; fewer, but at least `LEAST`, if they need more than `budget_s` without gaps.
        gap_s: rest before each timed call.
        budget_s: most seconds that the work may take, roughly.
        idle: called to wait that many seconds; default: the thread waits.
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
    return Timings(ms, runs, n)


def _warm_up(meter: Meter) -> float:
    """Call it until it is warm; return the seconds of its fastest call."""
    taken: list[float] = []
    while len(taken) < LEAST_WARM_UP or (len(taken) < WARM_UP and sum(taken) < WARM_UP_S * 1e3):
        taken.append(meter())
    return min(taken) / 1e3


def device_clock(engine: Enqueues) -> Callable[[], float]:
    """A meter: milliseconds on the GPU of one run over the inputs that are already there."""
    stream = torch.cuda.ExternalStream(engine.stream)
    return lambda: between_events(stream, engine.enqueue)


def between_events(stream: Any, work: Callable[[], object]) -> float:
    """Milliseconds between an event before and one after what `work` enqueues on this stream."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(stream)
    work()
    after.record(stream)
    after.synchronize()
    return float(before.elapsed_time(after))


def measure_rates(device: Where, precision: Precision) -> DeviceRates:
    """Multiply two square matrices and copy a block of memory; takes a few seconds at most."""
    size = SIZES[device]
    left, right, product = (
        torch.ones(size, size, dtype=torch_dtype(precision), device=device) for _ in range(3)
    )
    source, target = (torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device) for _ in range(2))
    with torch.inference_mode():
        multiply_s = _fastest(lambda: torch.mm(left, right, out=product), device)
        copy_s = _fastest(lambda: target.copy_(source), device)
    return DeviceRates(device, precision, 2 * size**3 / multiply_s, 2 * COPY_BYTES[device] / copy_s)


def _fastest(work: Callable[[], object], device: Where) -> float:
    """Seconds of the fastest run."""
    work()
    if device == "cpu":
        taken = []
        for _ in range(RUNS):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return min(taken)

    stream = torch.cuda.current_stream()
    return min(between_events(stream, work) for _ in range(RUNS)) / 1e3
