"""The report of `emi bench serve`: what each number of people costs one server, and what they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.measurement import Distribution
from emi_bench.render import Block, Column, Figure, Heading, Page, Panel, Paragraph, Table, number
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Cost", "Load", "ServeReport", "Simulated", "cost_of"]

COLUMNS: Final = (
    Column("replicas"),
    Column("sessions"),
    Column("estimates/s, least"),
    Column("mean", detail=3),
    Column("age p50, ms"),
    Column("age p95, ms"),
    Column("capture p95, ms", detail=1),
    Column("missed", detail=2),
    Column("pictures replaced", detail=4),
    Column("estimates skipped", detail=5),
    Column("words", detail=6),
    Column("hypotheses a call", detail=8),
    Column("told full", detail=7),
    Column("refused", detail=10),
    Column("lost", detail=11),
    Column("healthz, ms", detail=9),
    Column("cores"),
    Column("MiB"),
)


MACHINES: Final = ((2, 8), (16, 64), (64, 256))  # cores and GiB for which the number of people is calculated
MACHINE_COLUMNS: Final = (
    Column("cores"),
    Column("GiB"),
    Column("people by cores"),
    Column("by memory"),
    Column("ends first", words=True),
    Column("machines for 1,000"),
)
SIMULATED_COLUMNS: Final = (
    Column("sessions"),
    Column("machines"),
    Column("cores each"),
    Column("estimates/s"),
    Column("age p95, ms"),
    Column("missed, %"),
    Column("case", words=True),
)
KEPT: Final = 0.95  # of the estimates that are due: with fewer, a machine has too many people
BUSY: Final = 0.7  # share of the cores that people may take, so that those of a lost machine have room


@dataclass(frozen=True, slots=True)
class Cost:
    """What one more session takes, measured."""

    cores: float
    mib: float
    base_mib: float  # of a server without sessions


@dataclass(frozen=True, slots=True)
class Simulated:
    """Sessions that sleep for the measured cost in place of computing; nothing else of them is real."""

    what: str
    sessions: int
    machines: int
    cores: int
    seconds: float
    estimates_per_s: float
    age_p95_ms: float
    missed: float  # share of the estimates that were due


@dataclass(frozen=True, slots=True)
class Load:
    """One number of sessions at the same time."""

    sessions: int
    seconds: float
    rates: list[float]  # estimates a second of each session
    age_ms: Distribution | None  # from the end of a window, by the client's clock, to its arrival there
    pictures: int  # that were sent, of all sessions
    replaced: int | None  # pictures that a newer one replaced before they were decoded; None: not known
    skipped: int | None  # estimates that a newer one replaced before they were sent
    words: int  # committed, of all sessions
    cores: float  # of the servers and their recognisers, and of Ray
    pss_mib: float
    replicas: int = 0  # on Ray; 0: one process
    hop_s: float = 0.2
    missed: int = 0  # estimates that were due and did not come, of all sessions
    capture_ms: Distribution | None = None  # from the capture of the newest media in it to an estimate
    refused: int = 0  # of `sessions`, because those that were there got too few estimates
    lost: int = 0  # connections that ended before the time
    behind: int = 0  # sessions that were told that the machine is full
    health_ms: float | None = None  # until /healthz answered, under load
    hypotheses: dict[str, int] = field(default_factory=dict)  # by how many shared a call, as in JSON

    @property
    def together(self) -> float | None:
        """Hypotheses for each call of the recogniser; None: not known."""
        calls = sum(number / int(size) for size, number in self.hypotheses.items())
        return sum(self.hypotheses.values()) / calls if calls else None

    @property
    def kept(self) -> bool:
        """Whether everybody got nearly all estimates."""
        return not (self.refused or self.lost) and min(self.rates) * self.hop_s >= KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeReport(BenchReport):
    """One clip, sent by each number of clients at real pace."""

    bench: ClassVar[str] = "serve"

    clip: str
    pictures_per_s: float
    width: int
    settings: list[str]
    loads: list[Load]
    simulated: list[Simulated] = field(default_factory=list)
    recognizers: int = 0
    networks: int = 0

    def page(self) -> Page:
        """A table, and a figure of rate and age by number of sessions."""
        settings = f" Settings: {', '.join(self.settings)}." if self.settings else ""
        shared = {"network": self.networks, "recogniser": self.recognizers}
        counts = (f"{number} {what}{'s'[: number != 1]}" for what, number in shared.items() if number)
        if told := " and ".join(counts):
            settings += f" On Ray, all share {told}."
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
            [Paragraph(text), Table(COLUMNS, [_row(load) for load in self.loads]), *self._beyond()],
            Figure("What each person gets, by number of people", [panels], 2.8),
        )

    def _beyond(self) -> list[Block]:
        """What other machines would take, calculated, and the simulation."""
        cost = cost_of(self.loads)
        if cost is None:
            return []
        blocks: list[Block] = [
            Heading("Beyond this machine: calculated, not measured"),
            Paragraph(
                f"One more session takes {cost.cores:.2f} cores and {cost.mib:.0f} MiB next to "
                f"{cost.base_mib:.0f} MiB, measured above. People may take {100 * BUSY:.0f} % of the cores "
                "of a machine, and 80 % of its memory. Cores of other machines are taken as equally fast."
            ),
            Table(MACHINE_COLUMNS, [_machine(cost, cores, gib) for cores, gib in MACHINES]),
        ]
        if self.simulated:
            rows = [_simulated(one) for one in self.simulated]
            blocks += [
                Heading("Simulated: actors on Ray that sleep for the measured cost"),
                Paragraph("Only the queues for cores are real: no media, no network, no memory."),
                Table(SIMULATED_COLUMNS, rows),
            ]
        return blocks

    def _draw_rates(self, axes: Axes) -> None:
        for index, (replicas, loads) in enumerate(self._by_replicas()):
            for load in loads:
                axes.plot([load.sessions] * len(load.rates), load.rates, "o", color=f"C{index}", alpha=0.6)
            means = [sum(load.rates) / len(load.rates) for load in loads]
            axes.plot([load.sessions for load in loads], means, color=f"C{index}", label=replicas)
        axes.set_ylim(bottom=0)
        axes.legend()

    def _draw_ages(self, axes: Axes) -> None:
        for index, (replicas, loads) in enumerate(self._by_replicas()):
            found = [(load.sessions, load.age_ms) for load in loads if load.age_ms is not None]
            sessions = [n for n, _ in found]
            axes.plot(sessions, [age.median for _, age in found], "o-", color=f"C{index}", label=replicas)
            axes.plot(sessions, [age.p95 for _, age in found], "o--", color=f"C{index}")
        axes.set_ylim(bottom=0)
        axes.legend(title="median; dashed: p95")

    def _by_replicas(self) -> list[tuple[str, list[Load]]]:
        numbers = dict.fromkeys(load.replicas for load in self.loads)
        names = {number: f"{number} replicas" if number > 1 else "1 replica" for number in numbers}
        names |= {0: "one process"}
        return [(names[n], [load for load in self.loads if load.replicas == n]) for n in numbers]


def cost_of(loads: Sequence[Load]) -> Cost | None:
    """What a session takes in one process: the most that ran in time, and the slope of the memory to it.

    None: there are not two numbers of sessions that ran in time.
    """
    fit = sorted((load for load in loads if load.kept), key=lambda load: load.sessions)
    fit = [load for load in fit if load.replicas == min(one.replicas for one in fit)]
    if len({load.sessions for load in fit}) < 2:
        return None
    least, most = fit[0], fit[-1]
    mib = max(0.0, (most.pss_mib - least.pss_mib) / (most.sessions - least.sessions))
    return Cost(most.cores / most.sessions, mib, max(0.0, least.pss_mib - mib * least.sessions))


def _machine(cost: Cost, cores: int, gib: int) -> list[str]:
    by_cores = int(BUSY * cores / cost.cores + 1e-9)
    by_memory = int((0.8 * 1024 * gib - cost.base_mib) / cost.mib) if cost.mib else 10**6
    people = max(1, min(by_cores, by_memory))
    ends = "cores" if by_cores <= by_memory else "memory"
    return [str(cores), str(gib), str(by_cores), str(by_memory), ends, str(-(-1000 // people))]


def _simulated(one: Simulated) -> list[str]:
    return [
        str(one.sessions),
        str(one.machines),
        str(one.cores),
        f"{one.estimates_per_s:.0f}",
        number(one.age_p95_ms),
        f"{100 * one.missed:.1f}",
        one.what,
    ]


def _row(load: Load) -> list[str]:
    age = load.age_ms
    return [
        str(load.replicas or "-"),
        str(load.sessions),
        f"{min(load.rates):.2f}",
        f"{sum(load.rates) / len(load.rates):.2f}",
        number(None if age is None else age.median),
        number(None if age is None else age.p95),
        number(None if load.capture_ms is None else load.capture_ms.p95),
        str(load.missed),
        "-" if load.replaced is None else str(load.replaced),
        "-" if load.skipped is None else str(load.skipped),
        str(load.words),
        "-" if load.together is None else f"{load.together:.2f}",
        str(load.behind),
        str(load.refused),
        str(load.lost),
        number(load.health_ms),
        f"{load.cores:.2f}",
        f"{load.pss_mib:.0f}",
    ]
