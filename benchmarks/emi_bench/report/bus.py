"""The part of `emi bench bus`: hops by transport and packet, and floods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.fusion.page import number
from emi_bench.report.axes import plain_log
from emi_bench.report.table import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import SubFigure

    from emi_bench.report.read import Report

__all__ = ["draw", "height", "lines"]

FIGURES: Final = ("min_us", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us")
COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def lines(report: Report) -> list[str]:
    """The part's Markdown."""
    said = ["## The bus", "", f"{report.machine}. One packet at a time, microseconds.", ""]
    said += table(
        ("transport", "packet", "bytes", "n", "min", "mean", "p50", "p90", "p99", "p99.9", "max"),
        [
            [hop["transport"], _packet(hop), str(hop["bytes"]), str(hop["n"]), *_figures(hop)]
            for hop in report.found["hops"]
        ],
        words=2,
    )
    if report.found["floods"]:
        said += ["As many packets as will go:", ""]
        said += table(
            ("transport", "packet", "seconds", "sent", "read", "read a second", "dropped"),
            [_flood(flood) for flood in report.found["floods"]],
            words=2,
        )
    return said


def height(report: Report) -> float:
    """Of its part of the figure, in inches."""
    return 1.4 + 0.22 * len(report.found["hops"])


def draw(figure: SubFigure, report: Report) -> None:
    """Each kind of hop: its median, with a line to p99 and a thin one to p99.9."""
    figure.suptitle("The bus: one packet from a thread to another", fontsize="large")
    hops = list(reversed(report.found["hops"]))  # the first on top
    transports = list(dict.fromkeys(hop["transport"] for hop in report.found["hops"]))
    axes = figure.subplots()
    for place, hop in enumerate(hops):
        colour = COLOURS[transports.index(hop["transport"]) % len(COLOURS)]
        axes.plot([hop["p50_us"], hop["p999_us"]], [place] * 2, color=colour, linewidth=0.8)
        axes.plot([hop["p50_us"], hop["p99_us"]], [place] * 2, color=colour, linewidth=3, alpha=0.5)
        axes.plot(hop["p50_us"], place, "o", color=colour, markersize=5)
    axes.set_xscale("log")
    plain_log(axes.xaxis)
    axes.set_yticks(
        range(len(hops)), [f"{hop['transport']}: {_packet(hop)}" for hop in hops], fontsize="small"
    )
    axes.set_ylim(-0.6, len(hops) - 0.4)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("µs: median; thick to p99, thin to p99.9", fontsize="small")


def _figures(hop: Mapping[str, Any]) -> list[str]:
    return [number(hop[name]) for name in FIGURES]


def _flood(flood: Mapping[str, Any]) -> list[str]:
    return [
        flood["transport"],
        flood["packet"],
        number(flood["seconds"]),
        str(flood["published"]),
        str(flood["received"]),
        number(flood["received"] / flood["seconds"]),
        f"{flood['dropped'] / max(1, flood['published']):.0%}",
    ]


def _packet(hop: Mapping[str, Any]) -> str:
    return f"{hop['packet']}, {hop['gap_ms']:.0f} ms idle" if hop["gap_ms"] else str(hop["packet"])
