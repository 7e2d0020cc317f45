"""How fast this device multiplies and copies, measured: what a floor is made of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from emi_engine.precision import torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_bench.fusion.settings import Where
    from emi_engine.precision import Precision
    from emi_engine.work import Work

__all__ = ["Rates", "measure_rates"]

SIZES: Final = {"cpu": 1024, "cuda": 8192}  # of the square matrices: large enough to keep every core busy
COPY_BYTES: Final = {"cpu": 2**27, "cuda": 2**29}  # larger than caches
RUNS: Final = 10  # the fastest counts: a floor is what is possible


@dataclass(frozen=True, slots=True)
class Rates:
    """Floating-point operations and bytes a second that a device was seen to do, with all its cores."""

    device: Where
    precision: Precision
    flops_per_s: float
    bytes_per_s: float  # read and written

    def floor_ms(self, work: Work) -> float:
        """The time below which this work cannot be done at these rates, were the two perfectly overlapped."""
        return 1e3 * max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s)


def measure_rates(device: Where, precision: Precision) -> Rates:
    """Multiply two square matrices, and copy a block of memory; seconds at most."""
    size = SIZES[device]
    left, right, product = (
        torch.ones(size, size, dtype=torch_dtype(precision), device=device) for _ in range(3)
    )
    source, target = (torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device) for _ in range(2))
    with torch.inference_mode():
        multiply_s = _fastest(lambda: torch.mm(left, right, out=product), device)
        copy_s = _fastest(lambda: target.copy_(source), device)
    return Rates(device, precision, 2 * size**3 / multiply_s, 2 * COPY_BYTES[device] / copy_s)


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
    from emi_bench.fusion.device_time import between_events

    stream = torch.cuda.current_stream()
    return min(between_events(stream, work) for _ in range(RUNS)) / 1e3
