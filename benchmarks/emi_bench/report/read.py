"""Reports from files, which may be anybody's: refused in one line where they are none."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["BENCHES", "Report", "ReportError", "read_reports", "understood"]

BENCHES: Final = ("fusion", "live", "bus", "speech", "drift")
SCHEMA: Final = 1  # of each of them


class ReportError(EmiError, ValueError):
    """A file is no report of a benchmark, or its table or figure cannot be made."""


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What a benchmark wrote, and where it was found."""

    path: Path
    bench: str
    found: dict[str, Any]

    @property
    def machine(self) -> str:
        """Processor, cores, GPUs, system and versions in one line."""
        machine = self.found["machine"]
        gpus = "; ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]) or "no GPU"
        versions = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
        load = self.found["load_before"]
        busy = "" if load is None else f"; load average before the run {load:.1f}"
        busy += "; PARTIAL: the run was interrupted" if self.found.get("partial") else ""
        return (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}, "
            f"{machine['system']}, Python {machine['python']}, {versions}{busy}"
        )


def read_reports(paths: Sequence[Path]) -> list[Report]:
    """The reports in these files, in their order.

    Raises:
        ReportError: a file cannot be read, or is no report that this version knows.
    """
    return [_read(path) for path in paths]


@contextmanager
def understood(report: Report) -> Iterator[None]:
    """Inside, a field that is missing or of another kind is a `ReportError` that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(
            f"{report.path} is not a whole report of `emi bench {report.bench}` "
            f"({type(error).__name__}: {error}); write it anew with --json"
        ) from error


def _read(path: Path) -> Report:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read as JSON: {error}; give what `--json FILE` wrote") from error
    bench = found.get("bench") if isinstance(found, dict) else None
    if bench not in BENCHES:
        raise ReportError(
            f"{path} is no report of `emi bench` {', '.join(BENCHES)}; give what their `--json FILE` wrote"
        )
    if found.get("schema") != SCHEMA:
        raise ReportError(
            f"{path} has schema {found.get('schema')!r}, and this version reads {SCHEMA}; measure again"
        )
    return Report(path, bench, found)
