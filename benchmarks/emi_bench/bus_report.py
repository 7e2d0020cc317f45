"""The report of `emi bench bus`: hops by transport and packet, and floods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.render import Column, Figure, Page, Panel, Paragraph, Table, number
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = ["BusReport", "Flood", "HopTimes"]

COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red")
HOP_COLUMNS: Final = (
    Column("transport", words=True),
    Column("packet", words=True),
    Column("bytes"),
    Column("n"),
    Column("min", detail=2),
    Column("mean", detail=1),
    Column("p50"),
    Column("p90"),
    Column("p99"),
    Column("p99.9"),
    Column("max"),
)
FLOOD_COLUMNS: Final = (
    Column("transport", words=True),
    Column("packet", words=True),
    Column("seconds"),
    Column("sent"),
    Column("read"),
    Column("read a second"),
    Column("MB a second", detail=1),
    Column("dropped"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HopTimes:
    """Hops of one kind of packet over one transport, in microseconds."""

    transport: str
    packet: str
    bytes: int  # of all frames of the message
    gap_ms: float  # idle time before each packet; 0: none
    n: int
    min_us: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float

    @property
    def label(self) -> str:
        """The packet, and the idle time before it."""
        return f"{self.packet}, {self.gap_ms:.0f} ms idle" if self.gap_ms else self.packet


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What arrives if a publisher sends as fast as it can and never waits."""

    transport: str
    packet: str
    bytes: int
    seconds: float
    high_water_mark: int  # packets that may be queued at either end
    published: int
    received: int
    dropped: int  # as the reader counts them, from gaps in the sequence

    @property
    def received_per_s(self) -> float:
        """Packets that were read, a second."""
        return self.received / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BusReport(BenchReport):
    """All hops and floods of one run."""

    bench: ClassVar[str] = "bus"

    hops: list[HopTimes]
    floods: list[Flood]

    def page(self) -> Page:
        """One table of hops, one of floods; in the figure each hop's median, p99 and p99.9."""
        blocks: list[Block] = [
            Paragraph("One packet at a time, microseconds:"),
            Table(HOP_COLUMNS, [_hop(hop) for hop in self.hops]),
        ]
        if self.floods:
            blocks += [
                Paragraph("A flood, as many packets as the publisher can send:"),
                Table(FLOOD_COLUMNS, [_flood(flood) for flood in self.floods]),
            ]
        panel = Panel(self._draw, x_label="µs: median; thick to p99, thin to p99.9", log="x", grid="x")
        height = 1.4 + 0.22 * len(self.hops)
        figure = Figure("The bus: one packet from a thread to another", [[panel]], height)
        return Page("The bus", self.where_and_when(), blocks, figure if self.hops else None)

    def _draw(self, axes: Axes) -> None:
        transports = list(dict.fromkeys(hop.transport for hop in self.hops))
        hops = list(reversed(self.hops))  # the first on top
        for place, hop in enumerate(hops):
            colour = COLOURS[transports.index(hop.transport) % len(COLOURS)]
            axes.plot([hop.p50_us, hop.p999_us], [place] * 2, color=colour, linewidth=0.8)
            axes.plot([hop.p50_us, hop.p99_us], [place] * 2, color=colour, linewidth=3, alpha=0.5)
            axes.plot(hop.p50_us, place, "o", color=colour, markersize=5)
        labels = [f"{hop.transport}: {hop.label}" for hop in hops]
        axes.set_yticks(range(len(hops)), labels, fontsize="small")
        axes.set_ylim(-0.6, len(hops) - 0.4)


def _hop(hop: HopTimes) -> list[str]:
    times = (hop.min_us, hop.mean_us, hop.p50_us, hop.p90_us, hop.p99_us, hop.p999_us, hop.max_us)
    return [hop.transport, hop.label, str(hop.bytes), str(hop.n), *map(number, times)]


def _flood(flood: Flood) -> list[str]:
    return [
        flood.transport,
        flood.packet,
        number(flood.seconds),
        str(flood.published),
        str(flood.received),
        number(flood.received_per_s),
        number(flood.received_per_s * flood.bytes / 1e6),
        f"{flood.dropped / max(1, flood.published):.0%}",
    ]
