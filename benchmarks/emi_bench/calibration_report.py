"""The report of `emi bench calibrate`: how often ratings lie in the intervals, and how wide these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.render import Bullets, Column, Figure, Page, Panel, Table
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CalibrationReport", "CalibrationRow"]

COLUMNS: Final = (
    Column("modality", words=True),
    Column("intensity", words=True),
    Column("calibrated on", detail=1),
    Column("tested on"),
    Column("coverage"),
    Column("mean width"),
    Column("constant"),
    Column("shown", detail=3),
    Column("constant", detail=4),
    Column("nothing", detail=2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRow:
    """One emotion with one set of modalities, on files that were not used to calibrate."""

    modality: str
    emotion: str
    calibrated: int
    tested: int
    coverage: float  # share of ratings inside, to be 0.9
    width: float  # mean, after intervals are cut at 0 and 1
    constant: float  # mean width of one constant interval, the estimate ± the 90 % quantile of |error|
    # Share of the ratings of 0.5 and more that are not above the interval; None without such a rating.
    coverage_shown: float | None
    coverage_shown_constant: float | None
    nothing: float  # mean width of the interval if no modality is there


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport(BenchReport):
    """The intervals of one checkpoint."""

    bench: ClassVar[str] = "calibrate"

    checkpoint: str
    ratings: list[str]
    rows: list[CalibrationRow]

    def page(self) -> Page:
        """One table; in the figure the mean widths."""
        cells = [
            [
                row.modality,
                row.emotion,
                str(row.calibrated),
                str(row.tested),
                *(f"{value:.3f}" for value in (row.coverage, row.width, row.constant)),
                *(
                    "-" if value is None else f"{value:.3f}"
                    for value in (row.coverage_shown, row.coverage_shown_constant)
                ),
                f"{row.nothing:.3f}",
            ]
            for row in self.rows
        ]
        about = [
            f"Checkpoint {self.checkpoint}; ratings: {', '.join(self.ratings)}.",
            "Half of the speakers, or of the files where none is named, calibrate; the other half tests.",
            "Coverage: the share of tested ratings inside; 0.9 is wanted. Width: mean, within 0 to 1. "
            "Constant: the estimate ± one width. Shown: coverage of ratings of 0.5 and more, by both.",
            "Nothing: width without any modality.",
        ]
        panel = Panel(self._draw, x_label="mean width of the 90 % interval", grid="x", legend="above")
        return Page(
            "Intervals",
            self.where_and_when(),
            [Bullets(about), Table(COLUMNS, cells)],
            Figure(f"90 % intervals of {self.checkpoint}", [[panel]], 1.2 + 0.35 * len(self.rows)),
        )

    def _draw(self, axes: Axes) -> None:
        rows = list(reversed(self.rows))  # the first on top
        places = range(len(rows))
        axes.barh(places, [row.width for row in rows], color="C0", label="by the estimate")
        axes.plot([row.constant for row in rows], places, "k|", markersize=12, label="constant")
        axes.plot([row.nothing for row in rows], places, "rx", label="without any modality")
        axes.set_yticks(places, [f"{row.modality}: {row.emotion} ({row.coverage:.2f})" for row in rows])
