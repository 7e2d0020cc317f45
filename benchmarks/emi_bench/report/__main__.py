"""`python -m emi_bench.report`: the table and figure where there is no typer, as on a bare GPU machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emi_bench.report.console import make_report
from emi_bench.report.read import ReportError
from emi_models.printable import accept_any_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what the arguments say; the exit code: 0 done, 2 a file is no report or cannot be written."""
    accept_any_text()
    parser = argparse.ArgumentParser(
        prog="python -m emi_bench.report", description="A table and a figure from reports of emi bench."
    )
    parser.add_argument("files", type=Path, nargs="+", help="what --json FILE wrote")
    parser.add_argument(
        "--out", type=Path, help="write OUT.md and OUT.png; default: the page, to the terminal"
    )
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
