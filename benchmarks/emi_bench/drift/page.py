"""The page of output: what was compared with what, and a row for each way to stream. For 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from emi_bench.drift.words import WARNINGS, summary
from emi_bench.fusion.page import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from emi_bench.drift.report import Cell, DriftReport

__all__ = ["page"]

COLUMNS: Final = ("hop", "left", "held", "late s", "cosine", "p5", "Δ", "max Δ", "GFLOP/s", "RTF")


def page(report: DriftReport) -> RenderableType:
    """All of a report that a person wants to see."""
    plain = report.to_json()
    lines: list[RenderableType] = [
        Text(f"{report.machine.line()}; load before: {report.load_before:.1f}", style="dim"),
        *(Text(line, style="dim") for line in summary(plain)),
    ]
    lines += [Text(warning, style="bold yellow") for name, warning in WARNINGS.items() if plain[name]]
    for strategy in dict.fromkeys(cell.setting.strategy for cell in report.cells):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=strategy, title_justify="left")
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for cell in report.cells:
            if cell.setting.strategy == strategy:
                table.add_row(*_row(cell))
        lines.append(table)
    return Group(*lines)


def _row(cell: Cell) -> Iterator[str]:
    setting = cell.setting
    yield from (f"{seconds:g}" for seconds in (setting.hop_s, setting.left_s, setting.hold_s))
    yield f"{cell.latency_s:g}"
    yield from (f"{cosine:.4f}" for cosine in (cell.features.mean, cell.features.p5))
    yield from (f"{apart:.4f}" for apart in (cell.intensities.mean, cell.intensities.worst))
    yield number(cell.gflop_per_s)
    yield f"{cell.real_time_factor:.2f}"
