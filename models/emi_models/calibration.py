"""How far from people's ratings an estimate may be: 90 % intervals by split-conformal calibration.

A calibration belongs to one checkpoint and is a part of its header. It holds, for each set of modalities and
each emotion, how large the error |rating - estimate| is at most in nine of ten calibration files, by bins of
the estimate (a Mondrian split-conformal predictor: Vovk, Gammerman and Shafer 2005, chapter 4.5). The table
`none` is that of the estimate without any modality: one constant interval.
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

__all__ = ["LEVEL", "NONE", "Calibration", "Table", "fit_table"]

LEVEL: Final = 0.9
NONE: Final = "none"  # the name of the set without any modality
BINS: Final = 8
LEAST_IN_BIN: Final = 50  # files; with 50, coverage of a bin has a standard deviation of 4 %
MOST_BINS: Final = 100  # of a table in a file


@dataclass(frozen=True, slots=True)
class Table:
    """Half widths of intervals by the estimate: `widths[i]` from `edges[i - 1]` on, below `edges[i]`."""

    edges: tuple[float, ...]
    widths: tuple[float, ...]
    n: int  # files that it was made from

    def __post_init__(self) -> None:
        numbers = (*self.edges, *self.widths)
        if (
            len(self.widths) != len(self.edges) + 1
            or len(self.widths) > MOST_BINS
            or not all(isinstance(number, float | int) and 0 <= number <= 1 for number in numbers)
            or list(self.edges) != sorted(self.edges)
        ):
            raise ValueError("a calibration table has edges in order and one more width, all in [0, 1]")

    def width(self, estimate: float) -> float:
        """The half width at an estimate."""
        return self.widths[bisect_right(self.edges, estimate)]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Tables by set of modalities (`vision`, `vision+text`, `none`, …), then by emotion.

    An emotion that nobody rated for a set has no table there.
    """

    tables: Mapping[str, Mapping[str, Table]]

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Calibration:
        """The calibration in a header; `to_json` made it.

        Raises:
            TypeError, ValueError, KeyError: it is not one.
        """
        tables: dict[str, dict[str, Table]] = {}
        for name, rows in found.items():
            if name != NONE and not set(name.split("+")) <= set(MODALITIES):
                raise ValueError(f"calibration of {name!r}, which is no set of modalities")
            if unknown := set(rows) - set(EMOTIONS):
                raise ValueError(f"calibration of {min(unknown)!r}, which is no emotion")
            tables[name] = {
                emotion: Table(tuple(row["edges"]), tuple(row["widths"]), int(row["n"]))
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
        width = self._width(emotion, estimate, used)
        if width is None:
            return None
        nothing = self.tables.get(NONE, {}).get(emotion)
        if nothing is not None:
            width += gone * max(0.0, nothing.width(estimate) - width)
        return max(0.0, estimate - width), min(1.0, estimate + width)

    def _width(self, emotion: str, estimate: float, used: Sequence[Modality]) -> float | None:
        names = ["+".join(modality for modality in MODALITIES if modality in used) or NONE]
        if names[0] not in self.tables:
            names = list(used)
        rows = [self.tables[name][emotion] for name in names if emotion in self.tables.get(name, {})]
        return max((row.width(estimate) for row in rows), default=None)


def fit_table(
    estimates: NDArray[np.float64], ratings: NDArray[np.float64], *, bins: int = BINS
) -> Table | None:
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
    errors = np.abs(ratings - estimates)
    place = np.searchsorted(edges, estimates, side="right")
    widths = tuple(_bound(errors[place == index]) for index in range(len(edges) + 1))
    return Table(tuple(float(edge) for edge in edges), widths, n)


def _bound(errors: NDArray[np.float64]) -> float:
    """What the next error does not exceed with a probability of 90 %: the ceil((n + 1) 0.9)-th smallest."""
    rank = math.ceil((len(errors) + 1) * LEVEL)
    return float(min(1.0, np.sort(errors)[rank - 1])) if rank <= len(errors) else 1.0
