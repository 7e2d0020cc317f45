"""What a benchmark found before Ctrl-C: it is kept, and marked as what it is."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Interrupted", "keeping_what_was_found", "write_report"]


class Report(Protocol):
    """What a benchmark found."""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        ...


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a benchmark; `report` is what was found before it."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def write_report(where: Path | str | None, report: Report, *, partial: bool = False) -> None:
    """Write a report for machines.

    Args:
        where: the file; "-" for standard output; None = nowhere.
        report: what was found.
        partial: the run was interrupted, which the report then says itself.
    """
    if where is None:
        return
    story = report.to_json() | ({"partial": True} if partial else {})
    text = json.dumps(story, indent=1) + "\n"
    if str(where) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        Path(where).write_text(text, encoding="utf-8")


@contextmanager
def keeping_what_was_found(where: Path | str | None) -> Iterator[None]:
    """Inside, `Interrupted` writes its report to `where` and goes on as the Ctrl-C that it is."""
    try:
        yield
    except Interrupted as stop:
        write_report(where, stop.report, partial=True)
        if where not in (None, "-"):
            sys.stderr.write(f"interrupted: what was found until now is in {where}, marked as partial\n")
        raise
