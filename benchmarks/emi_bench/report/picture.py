"""The figure: each report's part under the other, drawn without a display, its machine below it."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING

from emi_bench.report import bus, drift, fusion, live, speech
from emi_bench.report.read import ReportError, understood

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_bench.report.read import Report

__all__ = ["draw_reports", "need_matplotlib"]

PARTS = {"fusion": fusion, "live": live, "bus": bus, "speech": speech, "drift": drift}
WIDTH = 15.0  # inches


def need_matplotlib() -> None:
    """Return if figures can be drawn.

    Raises:
        ReportError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ReportError(
            "the figure needs matplotlib, which is not installed; install the extra `train` "
            "(pip install 'emi-live[train]') or matplotlib itself, or leave the figure out with --no-figure"
        )


def draw_reports(path: Path, reports: Sequence[Report]) -> None:
    """Write a PNG of all reports.

    Raises:
        ReportError: a report is not whole, or matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = []
    for report in reports:
        with understood(report):
            heights.append(PARTS[report.bench].height(report) + 0.6)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained", dpi=110)
    parts = figure.subfigures(len(reports), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, report in zip(parts, reports, strict=True):
        with understood(report):
            PARTS[report.bench].draw(part, report)
            part.supxlabel("\n".join(textwrap.wrap(report.machine, 180)), fontsize="x-small", color="0.3")
    FigureCanvasAgg(figure).print_png(path)
