"""Latency as the field reports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

__all__ = ["Distribution", "percentile"]


def percentile(values: Sequence[float], p: float) -> float:
    """The p-th percentile (0 < p <= 100) without interpolation, as in trtexec: a value that was measured.

    Raises:
        ValueError: no values, or p out of range.
    """
    if not values or not 0 < p <= 100:
        raise ValueError(f"percentile {p} of {len(values)} values; give at least one value and 0 < p <= 100")
    ordered = sorted(values)
    return ordered[max(0, len(ordered) - 1 - int((1 - p / 100) * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a set of timings looks like, in the unit of the timings."""

    n: int
    min: float
    max: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    cv: float  # coefficient of variation: standard deviation / mean; above 0.025 trtexec calls a run unstable

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution | None:
        """The distribution of some values; None if there are none."""
        if not values:
            return None
        mean = fmean(values)
        return cls(
            n=len(values),
            min=min(values),
            max=max(values),
            mean=mean,
            median=percentile(values, 50),
            p90=percentile(values, 90),
            p95=percentile(values, 95),
            p99=percentile(values, 99),
            cv=pstdev(values) / mean if mean else 0.0,
        )
