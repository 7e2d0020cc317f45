"""Numbers of a run in the docs: README, model card and `truth.md` take them from the JSON in docs/benchmarks.

    python -m recipes.compact.pages

A page marks each place: `<!--NAME FORMAT-->.86<!--/-->` is a number (`tables.Run.values`, `tables.shown`),
and `<!--table NAME-->` … `<!--/-->` on lines of their own is a table. What stands between is written anew.
The sentences around it stay as they are, so read them again after a run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_bench.render import ReportError
from recipes.compact.card import CARD_TABLES
from recipes.compact.tables import TABLES, Run, read_run, shown

if TYPE_CHECKING:
    from re import Match

__all__ = ["DOCS", "PAGES", "main", "rewritten", "write_pages"]

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs/benchmarks"
PAGES: Final = (ROOT / "README.md", DOCS / "truth.md", ROOT / "docs/models/compact.md")
ALL_TABLES: Final = {**TABLES, **CARD_TABLES}
PLACE: Final = re.compile(r"<!--([a-z][^>\n]*?)-->(.*?)<!--/-->", re.DOTALL)


def write_pages(folder: Path) -> list[Path]:
    """Write the pages with the numbers in a folder, and return them.

    With docs/benchmarks the docs themselves are written, since they show what lies there; with another folder
    copies, which lie in it.

    Raises:
        ReportError: a measurement is missing, or a page names a number that no run gives.
    """
    run = read_run(folder)
    written = []
    for page in PAGES:
        target = page if folder.resolve() == DOCS else folder / page.name
        target.write_text(rewritten(page.read_text(encoding="utf-8"), run), encoding="utf-8")
        written.append(target)
    return written


def rewritten(text: str, run: Run) -> str:
    """A page with the numbers and tables of this run.

    Raises:
        ReportError: it names a number or a table that there is not.
    """
    values = run.values()

    def place(found: Match[str]) -> str:
        name, _, form = found[1].partition(" ")
        if name == "table":
            if form not in ALL_TABLES:
                raise ReportError(f"there is no table {form!r}; there are {', '.join(ALL_TABLES)}")
            inside = "\n" + "\n".join(ALL_TABLES[form](run)) + "\n"
        elif name in values:
            inside = shown(values[name], form or ".3f")
        else:
            raise ReportError(f"no run gives {name!r}")
        return f"<!--{found[1]}-->{inside}<!--/-->"

    return PLACE.sub(place, text)


def main() -> int:
    """Write the docs from docs/benchmarks; return 0, or 2 after one line with the error."""
    try:
        for page in write_pages(DOCS):
            sys.stdout.write(f"{page}\n")
    except (ReportError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
