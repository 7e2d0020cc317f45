"""The part of `emi bench drift`: a table of the ways to stream, and what context, waiting and work buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.drift.words import WARNINGS, summary
from emi_bench.fusion.page import number
from emi_bench.report.axes import plain_log
from emi_bench.report.table import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from emi_bench.report.read import Report

__all__ = ["draw", "height", "lines"]

HEAD: Final = (
    *("way", "hop s", "left s", "held s", "late s", "frames", "cosine", "p5", "worst"),
    *("windows", "mean Δ", "max Δ", "GFLOP/s", "of whole", "step ms", "p95", "RTF"),
)
EXPLAINED: Final = (
    "Each clip is streamed in each way and compared with one pass over all of it, 12 s at a time. Cosine: "
    "of a frame's features with those of the whole pass; mean, 5th percentile, worst. Δ: absolute change of "
    "the six intensities, when the network is given the streamed voice in place of the other, once a second. "
    "Late: hop + held, the age of the oldest frame of a step when it comes out, computing not counted. "
    "GFLOP/s: of a second of sound; of whole: beside a pass over the last 12 s at each hop, as "
    "`--audio-context full` does it. RTF: share of the time that it works."
)
COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
STYLES: Final = ("-", "--", ":", "-.")


def lines(report: Report) -> list[str]:
    """The part's Markdown."""
    found = report.found
    said = ["## Drift of the live voice", "", f"{report.machine}.", ""]
    said += [f"**{warning}**\n" for name, warning in WARNINGS.items() if found[name]]
    said += [*(f"- {line}" for line in summary(found)), "", EXPLAINED, ""]
    said += table(HEAD, [list(_row(cell, found["whole"]["gflop"])) for cell in found["cells"]])
    return said


def height(report: Report) -> float:
    """Of its part of the figure, in inches."""
    return 4.6 if report.found["cells"] else 1.0


def draw(figure: SubFigure, report: Report) -> None:
    """Cosine by context, change of intensities by lateness, work by hop."""
    found = report.found
    random = " - RANDOM WEIGHTS" if found["random_model"] or found["random_network"] else ""
    figure.suptitle(f"Drift of the live voice from one pass over the clip{random}", fontsize="large")
    cosine, change, work = figure.subplots(1, 3)
    _draw_cosine(cosine, found)
    _draw_change(change, found)
    _draw_work(work, found)


def _row(cell: Mapping[str, Any], whole_gflop: float) -> Iterator[str]:
    setting, features, change, steps = (
        cell[name] for name in ("setting", "features", "intensities", "steps_ms")
    )
    yield setting["strategy"]
    yield from (f"{setting[name]:g}" for name in ("hop_s", "left_s", "hold_s"))
    yield f"{cell['latency_s']:g}"
    yield str(features["frames"])
    yield from (f"{features[name]:.4f}" for name in ("mean", "p5", "worst"))
    yield str(change["windows"])
    yield from (f"{change[name]:.4f}" for name in ("mean", "worst"))
    yield number(cell["gflop_per_s"])
    yield f"{cell['gflop_per_s'] * setting['hop_s'] / whole_gflop:.1%}"
    yield from ("-", "-") if steps is None else (number(steps["median"]), number(steps["p95"]))
    yield f"{cell['real_time_factor']:.2f}"


def _groups(
    found: Mapping[str, Any], x: str, by: tuple[str, str]
) -> Iterator[tuple[str, str, str, list[Mapping[str, Any]]]]:
    """Cells that differ in `x` alone, in its order: name, colour and style of their line."""
    cells = found["cells"]
    first, second = (sorted({cell["setting"][name] for cell in cells}) for name in by)
    strategies = list(dict.fromkeys(cell["setting"]["strategy"] for cell in cells))
    for strategy in strategies:
        for a in first:
            for b in second:
                line = [
                    cell
                    for cell in cells
                    if cell["setting"]["strategy"] == strategy
                    and (cell["setting"][by[0]], cell["setting"][by[1]]) == (a, b)
                ]
                if line:
                    words = {"hop_s": "hop", "left_s": "left", "hold_s": "held"}
                    name = f"{words[by[0]]} {a:g}, {words[by[1]]} {b:g}"
                    name = name if len(strategies) == 1 else f"{strategy}, {name}"
                    place = first.index(a) + len(first) * strategies.index(strategy)
                    style = STYLES[second.index(b) % len(STYLES)]
                    line.sort(key=lambda cell: cell["setting"][x])
                    yield name, COLOURS[place % len(COLOURS)], style, line


def _draw_cosine(axes: Axes, found: Mapping[str, Any]) -> None:
    for name, colour, style, cells in _groups(found, "left_s", ("hop_s", "hold_s")):
        xs = [cell["setting"]["left_s"] for cell in cells]
        axes.plot(xs, [c["features"]["mean"] for c in cells], style, color=colour, marker="o", label=name)
        axes.plot(xs, [c["features"]["p5"] for c in cells], style, color=colour, marker="v", alpha=0.35)
    axes.set_xlabel("left context, s", fontsize="small")
    axes.set_ylabel("cosine: o mean, faint v 5th percentile", fontsize="small")
    _finish(axes)


def _draw_change(axes: Axes, found: Mapping[str, Any]) -> None:
    for name, colour, style, cells in _groups(found, "hop_s", ("left_s", "hold_s")):
        xs = [cell["latency_s"] for cell in cells]
        axes.plot(xs, [c["intensities"]["mean"] for c in cells], style, color=colour, marker="o", label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("late, s: hop + held", fontsize="small")
    axes.set_ylabel("mean change of the six intensities", fontsize="small")
    _finish(axes)


def _draw_work(axes: Axes, found: Mapping[str, Any]) -> None:
    for name, colour, style, cells in _groups(found, "hop_s", ("left_s", "hold_s")):
        xs = [cell["setting"]["hop_s"] for cell in cells]
        axes.plot(xs, [c["gflop_per_s"] for c in cells], style, color=colour, marker="o", label=name)
    hops = sorted({cell["setting"]["hop_s"] for cell in found["cells"]})
    whole = [found["whole"]["gflop"] / hop for hop in hops]
    axes.plot(hops, whole, color="black", marker="s", label="12 s anew at each hop")
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    axes.set_xlabel("hop, s", fontsize="small")
    axes.set_ylabel("GFLOP for a second of sound", fontsize="small")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize="xx-small", frameon=False, ncols=2, handlelength=4, markerscale=0.6)
