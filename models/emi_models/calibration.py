"""How far from people's ratings an estimate may be: 90 % intervals by split-conformal calibration.

A calibration belongs to one checkpoint and is a part of its header. It holds, for each set of modalities and
each emotion, how far the rating is below and above the estimate in nine of ten calibration files, by bins of
the estimate (a Mondrian split-conformal predictor: Vovk, Gammerman and Shafer 2005, chapter 4.5; of all
ranges that hold nine of ten, the shortest one). Without any modality (the table `none`) an interval is as
wide as the widest of all others: nothing was seen, so it is the least certain case.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from emi_models import EMOTIONS, MODALITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_models import Modality

__all__ = ["LEVEL", "NONE", "Calibration", "IntervalTable", "fit_table"]

LEVEL: Final = 0.9
NONE: Final = "none"  # the name of the set without any modality
BINS: Final = 8
LEAST_IN_BIN: Final = 50  # files; with 50, coverage of a bin has a standard deviation of 4 %
MOST_BINS: Final = 100  # of a table in a file


@dataclass(frozen=True, slots=True)
class IntervalTable:
    """How far ratings lie `below` and `above` an estimate; entry i is for those from `edges[i - 1]` on."""

    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    n: int  # files that it was made from

    def __post_init__(self) -> None:
        numbers = (*self.edges, *self.below, *self.above)
        if (
            not len(self.edges) + 1 == len(self.below) == len(self.above) <= MOST_BINS
            or not all(isinstance(number, float | int) and 0 <= number <= 1 for number in numbers)
            or list(self.edges) != sorted(self.edges)
        ):
            raise ValueError("a calibration table has edges in order and one more width, all in [0, 1]")

    def widths(self, estimate: float) -> tuple[float, float]:
        """How far the interval reaches below and above an estimate."""
        place = bisect_right(self.edges, estimate)
        return self.below[place], self.above[place]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Tables by set of modalities (`vision`, `vision+text`, `none`, …), then by emotion.

    An emotion that nobody rated for a set has no table there.
    """

    tables: Mapping[str, Mapping[str, IntervalTable]]

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Calibration:
        """The calibration in a header; `to_json` made it.

        Raises:
            TypeError, ValueError, KeyError: it is not one.
        """
        tables: dict[str, dict[str, IntervalTable]] = {}
        for name, rows in found.items():
            if name != NONE and not set(name.split("+")) <= set(MODALITIES):
                raise ValueError(f"calibration of {name!r}, which is not a set of modalities")
            if unknown := set(rows) - set(EMOTIONS):
                raise ValueError(f"calibration of {min(unknown)!r}, which is not an emotion")
            tables[name] = {
                emotion: IntervalTable(
                    tuple(row["edges"]), tuple(row["below"]), tuple(row["above"]), int(row["n"])
                )
                for emotion, row in rows.items()
            }
        return cls(tables)

    def to_json(self) -> dict[str, Any]:
        """Plain types, for the header."""
        return {
            name: {emotion: asdict(table) for emotion, table in rows.items()}
            for name, rows in self.tables.items()
        }

    def intervals(
        self, estimates: Sequence[float], used: Sequence[Modality], gone: float = 0.0
    ) -> tuple[tuple[float, float] | None, ...]:
        """A 90 % interval around each of six estimates in [0, 1]; None where nobody rated the emotion.

        A set of modalities that was not calibrated together has the widest interval of its members.

        Args:
            estimates: in the order of `EMOTIONS`.
            used: the modalities that the estimate used.
            gone: how far its evidence is on the way to being lost, in [0, 1]: an interval widens in that
                measure towards that of an estimate without any modality.
        """
        return tuple(
            self._interval(emotion, estimate, used, gone)
            for emotion, estimate in zip(EMOTIONS, estimates, strict=True)
        )

    def _interval(
        self, emotion: str, estimate: float, used: Sequence[Modality], gone: float
    ) -> tuple[float, float] | None:
        widths = self._widths(emotion, estimate, used)
        if widths is None:
            return None
        nothing = self.tables.get(NONE, {}).get(emotion)
        if nothing is not None:
            widest = nothing.widths(estimate)
            widths = [own + gone * max(0.0, far - own) for own, far in zip(widths, widest, strict=True)]
        below, above = widths
        return max(0.0, estimate - below), min(1.0, estimate + above)

    def _widths(self, emotion: str, estimate: float, used: Sequence[Modality]) -> Sequence[float] | None:
        names = ["+".join(modality for modality in MODALITIES if modality in used) or NONE]
        if names[0] not in self.tables:
            names = list(used)
        rows = [self.tables[name][emotion] for name in names if emotion in self.tables.get(name, {})]
        if not rows:
            return None
        return [max(side) for side in zip(*(row.widths(estimate) for row in rows), strict=True)]


def fit_table(
    estimates: NDArray[np.float64], ratings: NDArray[np.float64], *, bins: int = BINS
) -> IntervalTable | None:
    """The table of one emotion from calibration files; None for fewer than 50.

    Args:
        estimates: of files that were not trained on, (n,), in [0, 1].
        ratings: (n,), in [0, 1].
        bins: with about equally many files each; fewer where files are few. 1: one constant interval.
    """
    n = len(estimates)
    if n < LEAST_IN_BIN:
        return None
    bins = min(bins, n // LEAST_IN_BIN)
    edges = np.unique(np.quantile(estimates, np.arange(1, bins) / bins))
    edges = edges[edges > estimates.min()]
    errors = ratings - estimates
    place = np.searchsorted(edges, estimates, side="right")
    bounds = [_bounds(errors[place == index]) for index in range(len(edges) + 1)]
    below, above = zip(*bounds, strict=True)
    return IntervalTable(tuple(float(edge) for edge in edges), below, above, n)


def _bounds(errors: NDArray[np.float64]) -> tuple[float, float]:
    """The shortest range around 0 that holds the next error with a probability of 90 %.

    It holds ceil((n + 1) 0.9) of the n errors.
    """
    held = math.ceil((len(errors) + 1) * LEVEL)
    if held > len(errors):
        return 1.0, 1.0
    ordered = np.sort(errors)
    low = np.minimum(ordered[: len(errors) - held + 1], 0.0)
    high = np.maximum(ordered[held - 1 :], 0.0)
    best = int(np.argmin(high - low))
    return float(min(1.0, -low[best])), float(min(1.0, high[best]))
