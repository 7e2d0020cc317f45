"""Markdown tables, and numbers as they are written in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.fusion.page import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["STATISTICS", "statistics", "table"]

STATISTICS: Final = ("n", "min", "mean", "median", "p90", "p95", "p99", "max")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a table, with an empty one behind; all columns but the first `words` are numbers."""
    rule = ["---"] * words + ["--:"] * (len(head) - words)
    lines = [_line(head), _line(rule), *(_line(row) for row in rows)]
    return [*lines, ""]


def statistics(distribution: Mapping[str, Any]) -> list[str]:
    """A distribution's values in the order of `STATISTICS`."""
    return [str(distribution["n"]), *(number(distribution[name]) for name in STATISTICS[1:])]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
