"""`emi bench report`: one page and one figure from the JSON files of any benchmarks.

Runs where little more than Python is installed: `python -m emi_bench.report`. The figure needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emi_bench.render import draw_figures, markdown, need_matplotlib
from emi_bench.report_file import BenchReport, ReportError
from emi_models.console import accept_any_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["REPORTS", "main", "make_report", "read_report"]

# The report of each bench; loaded when one is read, because some need libraries that a bare machine lacks.
REPORTS: Final = {
    "bus": "emi_bench.bus.report:BusReport",
    "drift": "emi_bench.drift.report:DriftBenchReport",
    "fusion": "emi_bench.fusion.report:FusionReport",
    "live": "emi_bench.live.report:LiveReport",
    "speech": "emi_bench.speech.report:SpeechReport",
    "systems": "emi_bench.systems.report:SystemsReport",
}


class NotAReportError(ReportError):
    """A JSON file that is not the report of any benchmark."""


def read_report(path: Path) -> BenchReport:
    """The report in a file.

    Raises:
        NotAReportError: the file holds JSON, but not a report.
        ReportError: the file cannot be read, or its report is incomplete or of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read as JSON: {error}; give what `--json FILE` wrote") from error
    bench = _bench_of(found)
    if bench is None:
        raise NotAReportError(
            f"{path} is not a report of `emi bench` {', '.join(REPORTS)}; give what their `--json FILE` wrote"
        )
    module, _, name = REPORTS[bench].partition(":")
    report_class: type[BenchReport] = getattr(import_module(module), name)
    try:
        return report_class.from_json(found)
    except ReportError as error:
        raise ReportError(
            f"{path} is not a complete report of `emi bench {bench}`: {error}; measure again with --json"
        ) from error


def _bench_of(found: Any) -> str | None:
    """The bench that wrote a JSON value; None if none did."""
    if not isinstance(found, dict):
        return None
    if "bench" not in found and {"runs", "rows", "expectations"} <= found.keys():
        return "systems"  # the first version did not write its name
    bench = found.get("bench")
    return bench if isinstance(bench, str) and bench in REPORTS else None


def make_report(paths: Sequence[Path], out: Path | None, *, figure: bool = True) -> None:
    """Write `out`.md and `out`.png; without `out`, print the Markdown and draw nothing.

    Of several files, those that are not reports are skipped with a line on standard error. There is no figure
    if no report has anything to draw.

    Raises:
        ReportError: no file is a report, one is incomplete, `out` cannot be written, or matplotlib is absent.
    """
    if not paths:
        raise ReportError("no file; give what a benchmark's `--json FILE` wrote")
    reports: list[BenchReport] = []
    for path in paths:
        try:
            reports.append(read_report(path))
        except NotAReportError as error:
            if len(paths) == 1:
                raise
            sys.stderr.write(f"skipped: {error}\n")
    if not reports:
        raise ReportError("none of these files is a report; give what a benchmark's `--json FILE` wrote")
    pages = [report.page() for report in reports]
    if out is None:
        sys.stdout.write(markdown(pages))
        return
    page, picture = (out.with_name(out.name + suffix) for suffix in (".md", ".png"))
    figure = figure and any(each.figure is not None for each in pages)
    if figure:
        need_matplotlib()
    try:
        if figure:
            draw_figures(picture, pages)
        page.write_text(markdown(pages, picture.name if figure else None), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{out} cannot be written: {error}; make its folder first") from error
    sys.stdout.write(f"{page}\n" + (f"{picture}\n" if figure else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m emi_bench.report`, where typer is not installed. Exit code: 0 done, 2 bad file or place."""
    accept_any_text()
    parser = argparse.ArgumentParser(
        prog="python -m emi_bench.report",
        description="Make a page and a figure from reports of emi bench.",
        epilog="example: python -m emi_bench.report fusion-gpu.json --out fusion-gpu",
    )
    parser.add_argument("files", type=Path, nargs="+", help="what --json FILE wrote")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.png; default: print the page")
    parser.add_argument("--no-figure", action="store_true", help="leave the figure out")
    given = parser.parse_args(arguments)
    try:
        make_report(given.files, given.out, figure=not given.no_figure)
    except ReportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
