"""The part of `emi bench fusion`: a table of each case; engines side by side, and throughput by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.fusion.page import number
from emi_bench.fusion.report import CaseKey
from emi_bench.report.axes import plain_log
from emi_bench.report.table import STATISTICS, statistics, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from emi_bench.report.read import Report

__all__ = ["draw", "height", "lines"]

COLOURS: Final = {  # by the first word of an engine's name that is here
    "incremental": "tab:red",
    "tensorrt-rtx": "tab:olive",
    "tensorrt": "tab:green",
    "onnxruntime": "tab:blue",
    "torch-compile": "tab:orange",
    "torch-graph": "tab:brown",
    "torch": "tab:grey",
}
LOOKS: Final = {"bf16": ("--", "s"), "fp16": ("--", "o"), "2t": ("--", "s")}  # by how the name ends
HALF: Final = 0.17  # of a row, from its middle to where a pace is drawn


def lines(report: Report) -> list[str]:
    """The part's Markdown."""
    found = report.found
    said = [
        "## Fusion engines",
        "",
        f"{report.machine}. Threads: {found['torch_threads']} for PyTorch, "
        f"{found['numpy_threads'] or 'its own number'} for numpy. Engines took turns, call by call, "
        f"in an order that changed at each turn; {found['seconds']:.0f} s in all. Milliseconds; percentiles "
        "are values that were measured.",
        "",
        *_networks(found),
    ]
    for case in _cases(found):
        said += [f"### {case[0].upper()}{case[1:]}", "", *_case(_rows(found, case))]
    said += ["### Parity with PyTorch in fp32 on the CPU", ""]
    said += table(
        ("network", "of", "engine", "largest difference", "tolerance", "windows"),
        [_parity(row) for row in found["parity"]],
        words=3,
    )
    reasons = dict.fromkeys((gone["engine"], gone["reason"]) for gone in found["unavailable"])
    if reasons:
        said += ["### Not measured", "", *(f"- `{engine}`: {reason}" for engine, reason in reasons), ""]
    return said


def height(report: Report) -> float:
    """Of its part of the figure, in inches."""
    found = report.found
    engines = len(dict.fromkeys(row["engine"] for row in found["results"]))
    return 1.2 + len(found["networks"]) * (1.3 + 0.36 * engines)


def draw(figure: SubFigure, report: Report) -> None:
    """For each network: one window, one hop, and windows a second by batch."""
    networks = [network["name"] for network in report.found["networks"]]
    figure.suptitle("Fusion engines: from windows on the host to intensities on the host", fontsize="large")
    grid = figure.subplots(len(networks), 3, squeeze=False, width_ratios=(1.0, 1.0, 0.9))
    for (single, hops, batches), network in zip(grid, networks, strict=True):
        rows = [row for row in report.found["results"] if row["case"]["network"] == network]
        _draw_times(single, rows, "windows", f"{network}: one whole window")
        _draw_times(hops, rows, "stream", f"{network}: one hop of a stream")
        _draw_throughput(batches, rows, f"{network}: windows a second")


def _parity(row: Mapping[str, Any]) -> list[str]:
    kept = f"{row['worst']:.1e}" if row["worst"] <= row["tolerance"] else f"**{row['worst']:.1e}**"
    names = [row["network"], row["task"], f"`{row['engine']}`"]
    return [*names, kept, str(row["tolerance"]), str(row["windows"])]


def _networks(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for network in found["networks"]:
        shapes = network["shapes"]
        work = "-" if network["flops"] is None else number(network["flops"] / 1e9, 4)
        rows.append(
            (
                network["name"],
                network["what"],
                f"{network['audio_frames']} of {shapes['audio_frames']} x {shapes['audio_dim']}",
                f"{network['vision_frames']} of {shapes['vision_frames']} x {shapes['vision_dim']}",
                number(network["parameters"] / 1e6),
                work,
            )
        )
    head = ("network", "what", "voice frames", "face frames", "M parameters", "GFLOP a window")
    rates = ", ".join(
        f"{rate['device']} {rate['precision']} {number(rate['flops_per_s'] / 1e9)} GFLOP/s and "
        f"{number(rate['bytes_per_s'] / 1e9)} GB/s"
        for rate in found["rates"]
    )
    return [*table(head, rows, words=4), f"Measured rates, of which floors are made: {rates}.", ""]


def _case(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    body = []
    for row in sorted(rows, key=lambda row: row["wall_ms"]["median"]):
        on_gpu = row["device_ms"]
        times = row["wall_ms"]
        body.append(
            [
                f"`{row['engine']}`",
                *statistics(times),
                f"{times['cv']:.2f}",
                number(row["x_eager"]),
                "" if on_gpu else number(row["x_floor"]),
                number(row["windows_per_s"]),
            ]
        )
        if on_gpu:
            body.append(
                [
                    "… on the GPU alone",
                    *statistics(on_gpu),
                    f"{on_gpu['cv']:.2f}",
                    number(row["x_eager_device"]),
                    number(row["x_floor"]),
                    "",
                ]
            )
    floors = {row["precision"]: row["floor_ms"] for row in rows if row["floor_ms"] is not None}
    said = table(("engine", *STATISTICS, "cv", "x eager", "x floor", "windows/s"), body)
    if floors:
        said += ["Floor: " + ", ".join(f"{number(ms)} ms in {name}" for name, ms in floors.items()) + ".", ""]
    if any(row["wall_ms"]["n"] < row["n_asked"] for row in rows):
        said += [f"n is less than the {rows[0]['n_asked']} asked for: one turn of these engines is slow.", ""]
    return said


def _cases(found: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(str(CaseKey(**row["case"])) for row in found["results"]))


def _rows(found: Mapping[str, Any], case: str) -> list[Mapping[str, Any]]:
    return [row for row in found["results"] if str(CaseKey(**row["case"])) == case]


def _draw_times(axes: Axes, rows: Sequence[Mapping[str, Any]], task: str, title: str) -> None:
    """Medians of batch 1 with a line to p99, fastest on top; hollow after idling; floors as dashed lines."""
    rows = [row for row in rows if row["case"]["task"] == task and row["case"]["batch"] == 1]
    steady = sorted(
        (row for row in rows if not row["case"]["gap_s"]), key=lambda row: -float(row["wall_ms"]["median"])
    )
    places = {row["engine"]: place for place, row in enumerate(steady)}
    for row in rows:
        idle, times = row["case"]["gap_s"] > 0, row["wall_ms"]
        place = places[row["engine"]] + (-HALF if idle else HALF)
        colour = _colour(row["engine"])
        axes.plot([times["median"], times["p99"]], [place] * 2, color=colour, linewidth=1.5, alpha=0.6)
        axes.plot(
            times["median"], place, "o", color=colour, markersize=6, fillstyle="none" if idle else "full"
        )
        axes.annotate(
            number(times["median"]), (times["p99"], place), (4, 0), textcoords="offset points",
            ha="left", va="center", fontsize="x-small", color="0.2",
        )  # fmt: skip
        if row["device_ms"] and not idle:
            axes.plot(row["device_ms"]["median"], place, "D", color=colour, markersize=4)
    floors: dict[float, list[str]] = {}
    for precision, floor in {row["precision"]: row["floor_ms"] for row in rows if row["floor_ms"]}.items():
        floors.setdefault(floor, []).append(precision)
    for floor, precisions in floors.items():
        axes.axvline(floor, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"floor {', '.join(precisions)}", (floor, 0.0), (2, 3), xycoords=("data", "axes fraction"),
            rotation=90, textcoords="offset points", ha="left", va="bottom", fontsize="x-small",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.14)
    plain_log(axes.xaxis)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_yticks(list(places.values()), list(places))
    axes.grid(axis="x", alpha=0.3)
    on_gpu = "; ◆ on the GPU alone" if any(row["device_ms"] for row in rows) else ""
    axes.set_xlabel(f"ms, median: ● back to back, ○ after idling, line to p99{on_gpu}", fontsize="small")
    axes.set_title(title, fontsize="medium")


def _draw_throughput(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    rows = [row for row in rows if row["case"]["task"] == "windows" and not row["case"]["gap_s"]]
    batches = sorted({row["case"]["batch"] for row in rows})
    for engine in dict.fromkeys(row["engine"] for row in rows):
        points = [(row["case"]["batch"], row["windows_per_s"]) for row in rows if row["engine"] == engine]
        style, marker = next((look for name, look in LOOKS.items() if engine.endswith(name)), ("-", "o"))
        axes.plot(
            *zip(*sorted(points), strict=True), style, marker=marker, color=_colour(engine), label=engine
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.grid(alpha=0.3)
    axes.set_xlabel("windows in a call", fontsize="small")
    axes.set_title(title, fontsize="medium")
    axes.legend(fontsize="x-small", frameon=False)


def _colour(engine: str) -> str:
    return next((colour for name, colour in COLOURS.items() if engine.startswith(name)), "black")
