"""The page of output: which machine, where the time goes, what was lost, what it took. For 80 columns."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from emi_bench.live.stations import TOTAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from emi_bench.live.decode import Response
    from emi_bench.live.report import LiveReport
    from emi_bench.stats import Distribution
    from emi_models.vocabulary import Modality

__all__ = ["number", "page"]

NAMES: Final[Mapping[Modality, str]] = {"vision": "picture", "audio": "sound", "text": "words"}
LABELS: Final[Mapping[str, str]] = {"bus": "bus, hop's wait", TOTAL: "in all"}
BLOCKS: Final = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS: Final = 40


def page(report: LiveReport) -> RenderableType:
    """All of a report that a person wants to see."""
    lines: list[RenderableType] = [
        Text(f"{report.machine.line()}; load before: {report.load_before:.1f}", style="dim"),
        *(Text(part, style="dim") for part in report.parts),
        Text(
            f"{report.source}: {report.estimates} estimates in {report.seconds:.1f} s, hop {report.hop_s:g} "
            f"s, bus {report.transport}; not counted: the first {report.warm_up_s:g} s"
        ),
    ]
    if report.flash_beep is not None:
        lines += _flash_beep(report)
    lines += [_stations(report), *_facts(report)]
    return Group(*lines)


def number(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def _table(first: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in ("n", "min", "mean", "median", "p90", "p95", "p99", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(
    table: Table, name: str, values: Distribution, *, style: str | None = None, last: bool = False
) -> None:
    figures = (values.min, values.mean, values.median, values.p90, values.p95, values.p99, values.max)
    table.add_row(name, str(values.n), *map(number, figures), style=style, end_section=last)


def _stations(report: LiveReport) -> RenderableType:
    table = _table("milliseconds")
    for modality, stations in report.stations.items():
        for name, values in stations.items():
            if name not in report.per_estimate and name != TOTAL:
                label = name if name == "capture" or name == "bus" else f"{name} stage"
                _row(table, f"{NAMES[modality]}: {LABELS.get(name, label)}", values)
    for name, values in report.per_estimate.items():
        _row(table, f"all: {name}", values)
    for modality, stations in report.stations.items():
        _row(table, f"{NAMES[modality]}: {LABELS[TOTAL]}", stations[TOTAL], style="bold")
    if report.capture_to_estimate_ms is not None:
        _row(table, "newest evidence's age", report.capture_to_estimate_ms)
    return table


def _flash_beep(report: LiveReport) -> Iterable[RenderableType]:
    found = report.flash_beep
    if found is None:
        return
    table = _table("milliseconds")
    rows: dict[str, Response] = {"light to estimate": found.light, "sound to estimate": found.sound}
    for name, response in rows.items():
        _row(table, name, response.to_estimate_ms, style="bold")
    yield table
    yield Text(f"in it, the wait for the next hop: 0 to {1000 * report.hop_s:g} ms, on any machine")
    for name, response in rows.items():
        what = name.partition(" ")[0]
        low, high = response.stamp_error_ms
        verdict = "right" if response.stamps_right else "WRONG"
        yield Text(
            f"{what}: {response.to_estimate_ms.n} of {response.onsets} onsets seen; the code fits "
            f"{response.agreement:.0%} of estimates (elsewhere {response.runner_up:.0%}) "
            f"with a lag of {response.lag_ms:.0f} ms; "
            f"stamps are {verdict} (off by {low:+.0f} to {high:+.0f} ms, as the code has it)",
            style="" if response.stamps_right else "bold red",
        )


def _facts(report: LiveReport) -> Iterable[Text]:
    if report.engine_ms is not None:
        yield Text(
            f"the network alone: median {number(report.engine_ms.median)} ms; "
            f"{report.face_frames_per_s:.1f} pictures/s analysed"
        )
    if report.ages_ms and report.flash_beep is None:
        ages = ", ".join(f"{name} {number(values.median)}" for name, values in report.ages_ms.items())
        yield Text(f"newest face, voice and word at the window's end, median ms: {ages}")
    lost = [f"{edge.name}: {name} {n}" for edge in report.edges for name, n in edge.lost.items()]
    yield Text("lost: " + ("; ".join(lost) or f"nothing, on {len(report.edges)} edges"))
    cores, memory = [s.cores for s in report.usage], [s.rss_mib for s in report.usage]
    yield Text(f"cores busy: mean {report.cpu_cores:.2f} {_spark(cores)} max {max(cores, default=0):.2f}")
    yield Text(
        f"memory: peak {report.peak_rss_mib:.0f} MiB {_spark(memory)} "
        f"{report.rss_growth_mib:+.1f} MiB in the second half"
    )


def _spark(values: list[float]) -> str:
    """Values over time from 0 up to their largest, in at most `SPARK_COLUMNS` characters."""
    if not values or max(values) <= 0:
        return ""
    width = min(SPARK_COLUMNS, len(values))
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    top = max(means)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(len(BLOCKS) * mean / top))] for mean in means)
