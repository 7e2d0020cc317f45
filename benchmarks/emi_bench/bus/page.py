"""The page of output, for 80 columns; and the same for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from emi_bench.bus.hops import Flood, Hops
    from emi_bench.machine import Machine

__all__ = ["SCHEMA", "BusReport", "page"]

SCHEMA: Final = 1  # raised when a field changes its meaning or goes


@dataclass(frozen=True, slots=True)
class BusReport:
    """All hops and floods of one run."""

    machine: Machine
    load_before: float  # of the machine, in processes that want a core
    hops: list[Hops]
    floods: list[Flood]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {"bench": "bus", "schema": SCHEMA, **asdict(self)}


def page(report: BusReport) -> RenderableType:
    """Both tables, under the machine."""
    parts: list[RenderableType] = [
        Text(f"{report.machine.line()}; load before: {report.load_before:.1f}", style="dim")
    ]
    hops = _table("hop, µs", "packet", "bytes", "n", "p50", "p90", "p99", "p99.9", "max")
    before = ""
    for hop in report.hops:
        if before and before != hop.transport:
            hops.add_section()
        packet = f"{hop.packet}, {hop.gap_ms:.0f} ms idle" if hop.gap_ms else hop.packet
        figures = (hop.p50_us, hop.p90_us, hop.p99_us, hop.p999_us, hop.max_us)
        hops.add_row(
            "" if before == hop.transport else hop.transport,
            packet,
            str(hop.bytes),
            str(hop.n),
            *(f"{value:.0f}" for value in figures),
        )
        before = hop.transport
    parts.append(hops)
    if report.floods:
        parts.append(_floods(report.floods))
    return Group(*parts)


def _floods(floods: list[Flood]) -> Table:
    table = _table("flood", "packet", "s", "sent", "read", "read/s", "MB/s", "dropped")
    for flood in floods:
        table.add_row(
            flood.transport,
            flood.packet,
            f"{flood.seconds:.1f}",
            str(flood.published),
            str(flood.received),
            f"{flood.received_per_s:.0f}",
            f"{flood.received_per_s * flood.bytes / 1e6:.1f}",
            f"{flood.dropped / max(1, flood.published):.0%}",
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    return table
