"""The part of `emi bench live`: time by station, what was lost, and what it took of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.fusion.page import number
from emi_bench.report.table import STATISTICS, statistics, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from emi_bench.report.read import Report

__all__ = ["draw", "height", "lines"]

TOTAL: Final = (
    "total"  # as `emi_bench.live.stations` names the sum of all, which needs a live engine to import
)
EVIDENCE: Final = {"vision": "picture", "audio": "sound", "text": "words"}
COLOURS: Final = {
    "capture": "tab:grey",
    "face": "tab:green",
    "audio": "tab:orange",
    "speech": "tab:pink",
    "text": "tab:red",
    "bus": "tab:cyan",
    "window": "tab:olive",
    "fusion": "tab:blue",
    "sink": "tab:purple",
}


def lines(report: Report) -> list[str]:
    """The part's Markdown."""
    found = report.found
    said = [
        f"## Live: {found['source']}",
        "",
        f"{report.machine}.",
        "",
        *(f"- {part}" for part in found["parts"]),
        "",
        f"{found['estimates']} estimates in {found['seconds']:.1f} s, hop {found['hop_s']:g} s, window "
        f"{found['window_s']:g} s, bus {found['transport']}; the first {found['warm_up_s']:g} s are left "
        "out. Milliseconds.",
        "",
    ]
    said += table(("evidence", "station", *STATISTICS), _rows(found), words=2)
    lost = [f"{edge['name']}: {name} {n}" for edge in found["edges"] for name, n in edge["lost"].items()]
    said += [
        f"Lost: {'; '.join(lost) or 'nothing'}. Cores busy: {found['cpu_cores']:.2f}. Memory: peak "
        f"{found['peak_rss_mib']:.0f} MiB, {found['rss_growth_mib']:+.1f} MiB in the second half. "
        f"{found['face_frames_per_s']:.1f} pictures a second analysed.",
        "",
    ]
    return said


def height(report: Report) -> float:
    """Of its part of the figure, in inches."""
    return 1.8 + 0.5 * len(report.found["stations"])


def draw(figure: SubFigure, report: Report) -> None:
    """Where the time goes, by evidence; cores and memory over time."""
    found = report.found
    figure.suptitle(f"Live: {found['source']}, from the sensor to the sink", fontsize="large")
    stations, usage = figure.subplots(1, 2, width_ratios=(1.6, 1.0))
    _draw_stations(stations, found["stations"])
    times = [sample["t_s"] for sample in found["usage"]]
    usage.plot(times, [sample["cores"] for sample in found["usage"]], color="tab:blue")
    usage.set_ylim(bottom=0.0)
    usage.set_ylabel("cores busy", color="tab:blue")
    usage.set_xlabel("seconds", fontsize="small")
    memory = usage.twinx()
    memory.plot(times, [sample["rss_mib"] for sample in found["usage"]], color="tab:red")
    memory.set_ylim(0.0, 1.15 * max((sample["rss_mib"] for sample in found["usage"]), default=1.0))
    memory.set_ylabel("memory, MiB", color="tab:red")


def _draw_stations(axes: Axes, stations: Mapping[str, Mapping[str, Any]]) -> None:
    """Means of each station, one behind the other, as means add up; and when 95 of 100 are through."""
    drawn = set()
    for place, times in enumerate(reversed(list(stations.values()))):
        left = 0.0
        for name, values in times.items():
            if name == TOTAL:
                continue
            label = None if name in drawn else name
            axes.barh(place, values["mean"], 0.6, left=left, color=COLOURS.get(name, "black"), label=label)
            drawn.add(name)
            left += values["mean"]
        p95 = times[TOTAL]["p95"]
        axes.plot(p95, place, "|", color="black", markersize=18, markeredgewidth=2)
        axes.annotate(f"p95 {number(p95)}", (p95, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(stations)), [EVIDENCE.get(name, name) for name in reversed(list(stations))])
    axes.margins(x=0.15)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("ms, mean of each station (bus: also the wait for the hop)", fontsize="small")
    axes.legend(fontsize="x-small", frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    if found["flash_beep"] is not None:
        for name in ("light", "sound"):
            yield [f"{name} to estimate", "in all", *statistics(found["flash_beep"][name]["to_estimate_ms"])]
    for modality, times in found["stations"].items():
        for name, values in times.items():
            station = "in all" if name == TOTAL else name
            yield [EVIDENCE.get(modality, modality), station, *statistics(values)]
    if found["engine_ms"] is not None:
        yield ["the network alone", "", *statistics(found["engine_ms"])]
