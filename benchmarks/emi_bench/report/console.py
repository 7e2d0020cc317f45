"""From files to a page and a picture: what both doors lead to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from emi_bench.report.markdown import markdown
from emi_bench.report.picture import draw_reports, need_matplotlib
from emi_bench.report.read import ReportError, read_reports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["make_report"]


def make_report(paths: Sequence[Path], out: Path | None, *, figure: bool = True) -> None:
    """Write `out`.md and `out`.png; without `out`, the page goes to standard output and nothing is drawn.

    Raises:
        ReportError: a file is no report, a place cannot be written, or matplotlib is absent.
    """
    if not paths:
        raise ReportError("no file; give what a benchmark's `--json FILE` wrote")
    reports = read_reports(paths)
    if out is None:
        sys.stdout.write(markdown(reports, None))
        return
    page, picture = (out.with_name(out.name + suffix) for suffix in (".md", ".png"))
    if figure:
        need_matplotlib()
    text = markdown(reports, picture.name if figure else None)
    try:
        if figure:
            draw_reports(picture, reports)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{out} cannot be written: {error}; make its folder first") from error
    sys.stdout.write(f"{page}\n" + (f"{picture}\n" if figure else ""))
