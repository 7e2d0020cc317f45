"""The page: each report's part under its machine, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emi_bench.report import bus, drift, fusion, live, speech
from emi_bench.report.read import understood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.report.read import Report

__all__ = ["markdown"]

PARTS = {
    "fusion": fusion.lines,
    "live": live.lines,
    "bus": bus.lines,
    "speech": speech.lines,
    "drift": drift.lines,
}


def markdown(reports: Sequence[Report], picture: str | None) -> str:
    """One page of all reports; `picture` is the file name of their figure.

    Raises:
        ReportError: a report is not whole.
    """
    lines = [] if picture is None else [f"![The same as a figure]({picture})", ""]
    for report in reports:
        with understood(report):
            lines += PARTS[report.bench](report)
    return "\n".join(lines).rstrip() + "\n"
