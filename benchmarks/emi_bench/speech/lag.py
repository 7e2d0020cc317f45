"""Does the lag grow? A line through it, by least squares."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SPAN_S", "Slope", "in_spans", "slope"]

SPAN_S: Final = 15.0  # longer than a sentence: within one the lag goes up and down, and is no trend
LEAST_SPANS: Final = 4


@dataclass(frozen=True, slots=True)
class Slope:
    """How much more a value is with each minute, and how sure that is."""

    ms_per_minute: float
    standard_error: float  # of the same, from what the line leaves unexplained
    n: int  # points of the line


def in_spans(points: Iterable[tuple[float, float]], span_s: float = SPAN_S) -> list[tuple[float, float]]:
    """Means of (seconds, ms) over each `span_s`, at its middle; without the first, in which all settles."""
    spans: dict[int, list[float]] = defaultdict(list)
    for at_s, value in points:
        spans[int(at_s // span_s)].append(value)
    spans.pop(0, None)
    return [((index + 0.5) * span_s, fmean(spans[index])) for index in sorted(spans)]


def slope(points: list[tuple[float, float]]) -> Slope | None:
    """The line of least squares through (seconds, ms); None of fewer than four points."""
    if len(points) < LEAST_SPANS:
        return None
    minutes = [at_s / 60 for at_s, _ in points]
    middle, mean = fmean(minutes), fmean(value for _, value in points)
    spread = sum((minute - middle) ** 2 for minute in minutes)
    rise = (
        sum((minute - middle) * (value - mean) for minute, (_, value) in zip(minutes, points, strict=True))
        / spread
    )
    left = sum(
        (value - mean - rise * (minute - middle)) ** 2
        for minute, (_, value) in zip(minutes, points, strict=True)
    )
    return Slope(rise, sqrt(left / (len(points) - 2) / spread), len(points))
