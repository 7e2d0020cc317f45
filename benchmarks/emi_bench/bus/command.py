"""`emi bench bus`: from the command line to a page and a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from emi_bench.partial import Interrupted, keeping_what_was_found, write_report

__all__ = ["bus"]

SPARSE_GAP_S: Final = 0.033  # a camera's frame
QUICK_N: Final = 1_000
QUICK_FLOOD_S: Final = 0.5
SPARSE_SHARE: Final = 20  # so many times fewer packets where each waits for its gap


def bus(
    transport: Annotated[
        list[str] | None,
        typer.Option("--transport", help="inproc, ipc, tcp or tcp+curve; repeat it. Default: all."),
    ] = None,
    n: Annotated[int, typer.Option(min=100, help="Timed packets in each case.")] = 10_000,
    flood: Annotated[float, typer.Option(min=0.0, help="Seconds of a flood over each; 0 for none.")] = 2.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute: a tenth of the packets, half a second of flood.")
    ] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report here, for machines.")] = None,
) -> None:
    """How long does a packet take over the bus? By transport and size, and how much goes through.

    For example: [bold]emi bench bus --quick[/bold] or
    [bold]emi bench bus --transport inproc --transport ipc[/bold]
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from emi_bench.bus.hops import TRANSPORTS, Flood, Hops, measure_flood, measure_hops
    from emi_bench.bus.packets import make_packets
    from emi_bench.bus.page import BusReport, page
    from emi_bench.machine import Machine
    from emi_bench.usage import load_average
    from emi_live.cli.preflight import check_writable
    from emi_live.errors import ConfigurationError

    wanted = list(dict.fromkeys(transport or TRANSPORTS))
    if unknown := [name for name in wanted if name not in TRANSPORTS]:
        raise ConfigurationError(f"--transport {unknown[0]} is not one of {', '.join(TRANSPORTS)}")
    if json_ is not None:
        check_writable("--json", json_)
    if quick:
        n, flood = min(n, QUICK_N), min(flood, QUICK_FLOOD_S)
    load_before = load_average()
    packets = make_packets()
    first, packet = next(iter(packets.items()))
    hops: list[Hops] = []
    floods: list[Flood] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        keeping_what_was_found(json_),
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task("", total=len(wanted) * (len(packets) + 2))
        try:
            for name in wanted:
                for what, each in packets.items():
                    bar.update(task, description=f"{name}, {what}")
                    hops.append(measure_hops(name, what, each, n))
                    bar.advance(task)
                bar.update(task, description=f"{name}, with gaps")
                hops.append(measure_hops(name, first, packet, max(20, n // SPARSE_SHARE), SPARSE_GAP_S))
                bar.advance(task)
                if flood:
                    bar.update(task, description=f"{name}, flooded")
                    floods.append(measure_flood(name, first, packet, flood))
                bar.advance(task)
        except KeyboardInterrupt:
            raise Interrupted(BusReport(Machine(), load_before, hops, floods)) from None
    report = BusReport(Machine(), load_before, hops, floods)
    Console(highlight=False).print(page(report))
    write_report(json_, report)
