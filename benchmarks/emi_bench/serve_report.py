"""The report of `emi bench serve`: what each number of people costs one server, and what they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.measurement import Distribution
from emi_bench.render import Column, Figure, Page, Panel, Paragraph, Table, number
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Load", "ServeReport"]

COLUMNS: Final = (
    Column("sessions"),
    Column("estimates/s each, least"),
    Column("mean"),
    Column("age p50, ms"),
    Column("age p95, ms"),
    Column("pictures replaced", detail=1),
    Column("estimates skipped", detail=2),
    Column("words", detail=3),
    Column("cores"),
    Column("MiB"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """One number of sessions at the same time."""

    sessions: int
    seconds: float
    rates: list[float]  # estimates a second of each session
    age_ms: Distribution | None  # from the end of a window, by the client's clock, to its arrival there
    pictures: int  # that were sent, of all sessions
    replaced: int  # pictures that a newer one replaced before they were decoded
    skipped: int  # estimates that a newer one replaced before they were sent
    words: int  # committed, of all sessions
    cores: float  # of the server and its recogniser
    pss_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeReport(BenchReport):
    """One clip, sent by each number of clients at real pace."""

    bench: ClassVar[str] = "serve"

    clip: str
    pictures_per_s: float
    width: int
    settings: list[str]
    loads: list[Load]

    def page(self) -> Page:
        """A table, and a figure of rate and age by number of sessions."""
        settings = f" Settings: {', '.join(self.settings)}." if self.settings else ""
        text = (
            f"{self.clip} at real pace, {self.pictures_per_s:g} pictures a second, {self.width} pixels wide, "
            f"and its sound, by WebSocket clients on the same machine.{settings}"
        )
        panels = [
            Panel(self._draw_rates, x_label="sessions", y_label="estimates/s each"),
            Panel(self._draw_ages, x_label="sessions", y_label="age, ms"),
        ]
        return Page(
            "Many people, one server",
            self.where_and_when(),
            [Paragraph(text), Table(COLUMNS, [_row(load) for load in self.loads])],
            Figure("What each person gets, by number of people", [panels], 2.8),
        )

    def _draw_rates(self, axes: Axes) -> None:
        for load in self.loads:
            axes.plot([load.sessions] * len(load.rates), load.rates, "o", color="tab:blue", alpha=0.6)
        axes.set_ylim(bottom=0)

    def _draw_ages(self, axes: Axes) -> None:
        found = [(load.sessions, load.age_ms) for load in self.loads if load.age_ms is not None]
        axes.plot([n for n, _ in found], [age.median for _, age in found], "o-", label="median")
        axes.plot([n for n, _ in found], [age.p95 for _, age in found], "o--", label="p95")
        axes.set_ylim(bottom=0)
        axes.legend()


def _row(load: Load) -> list[str]:
    age = load.age_ms
    return [
        str(load.sessions),
        f"{min(load.rates):.2f}",
        f"{sum(load.rates) / len(load.rates):.2f}",
        number(None if age is None else age.median),
        number(None if age is None else age.p95),
        str(load.replaced),
        str(load.skipped),
        str(load.words),
        f"{load.cores:.2f}",
        f"{load.pss_mib:.0f}",
    ]
