"""`emi bench report`: the door with typer; `python -m emi_bench.report` is the one without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    files: Annotated[list[Path], typer.Argument(help="What `--json FILE` of the benchmarks wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Write OUT.md and OUT.png. Default: the page, to the terminal.")
    ] = None,
    figure: Annotated[bool, typer.Option(help="Draw the figure too; it needs matplotlib.")] = True,
) -> None:
    """A table and a figure from any reports of emi bench fusion, live, bus, speech and drift.

    For example: [bold]emi bench report fusion.json bus.json --out docs/benchmarks/mine[/bold]
    """
    from emi_bench.report.console import make_report
    from emi_bench.report.read import ReportError
    from emi_live.errors import ConfigurationError

    try:
        make_report(files, out, figure=figure)
    except ReportError as error:
        raise ConfigurationError(str(error)) from error
