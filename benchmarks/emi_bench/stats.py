"""Statistics of timings: distributions, percentiles, and the trend of a value over time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SPAN_S", "Distribution", "Slope", "means_of_spans", "percentile", "slope"]

SPAN_S: Final = 15.0  # longer than a sentence: within a sentence the lag rises and falls, which is no trend
LEAST_SPANS: Final = 4


def percentile(values: Sequence[float], p: float) -> float:
    """The p-th percentile (0 <= p <= 100) without interpolation: one of the values.

    It is the smallest value that at least p % of the values do not exceed: numpy's `inverted_cdf`, the
    nearest-rank definition, as in trtexec. Of the values 1 to 10, p90 is 9.

    Raises:
        ValueError: there are no values, or p is out of range.
    """
    if not values or not 0 <= p <= 100:
        raise ValueError(f"percentile {p} of {len(values)} values; give at least one value and 0 <= p <= 100")
    # 99.9 / 100 is slightly more than 0.999, which would be one rank too high for 1000 values.
    return float(np.quantile(values, round(p / 100, 9), method="inverted_cdf"))


@dataclass(frozen=True, slots=True)
class Distribution:
    """Summary of a set of timings, in the unit of the timings."""

    n: int
    min: float
    max: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    # Coefficient of variation: standard deviation / mean. trtexec calls a run above 0.025 unstable.
    cv: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution | None:
        """The distribution of the values; None if there are none."""
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


@dataclass(frozen=True, slots=True)
class Slope:
    """How much a value grows a minute, by a line of least squares, and how certain that is."""

    ms_per_minute: float
    standard_error: float  # of `ms_per_minute`, from the residuals of the line
    n: int  # points of the line


def means_of_spans(
    points: Iterable[tuple[float, float]], span_s: float = SPAN_S
) -> list[tuple[float, float]]:
    """Means of (seconds, ms) points over spans of `span_s`, as (middle of the span, mean).

    The first span is left out, because the engine settles in it.
    """
    spans: dict[int, list[float]] = defaultdict(list)
    for at_s, value in points:
        spans[int(at_s // span_s)].append(value)
    spans.pop(0, None)
    return [((index + 0.5) * span_s, fmean(spans[index])) for index in sorted(spans)]


def slope(points: list[tuple[float, float]]) -> Slope | None:
    """The line of least squares through (seconds, ms) points; None for fewer than four points."""
    if len(points) < LEAST_SPANS:
        return None
    minutes = [at_s / 60 for at_s, _ in points]
    values = [value for _, value in points]
    middle, mean = fmean(minutes), fmean(values)
    spread = sum((minute - middle) ** 2 for minute in minutes)
    rise = (
        sum((minute - middle) * (value - mean) for minute, value in zip(minutes, values, strict=True))
        / spread
    )
    residual = sum(
        (value - mean - rise * (minute - middle)) ** 2 for minute, value in zip(minutes, values, strict=True)
    )
    return Slope(rise, sqrt(residual / (len(points) - 2) / spread), len(points))
