"""The page of output, in plain text: a bare machine has nothing that draws tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emi_bench.fusion.report import FusionReport, Result
    from emi_bench.stats import Distribution

__all__ = ["number", "page"]

STATISTICS: Final = ("min", "mean", "median", "p90", "p95", "p99", "max")
STABLE: Final = 0.25  # above this coefficient of variation, other work was in the way


def page(report: FusionReport) -> str:
    """All that was found, to be read."""
    return "\n".join(_lines(report)) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A value with so many significant digits, no exponent; a dash for none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    decimals = 0
    while abs(value) * 10**decimals < 10 ** (digits - 1) and decimals < 6:
        decimals += 1
    return f"{value:.{decimals}f}"


def _lines(report: FusionReport) -> Iterator[str]:
    yield report.machine.line()
    load = "unknown" if report.load_before is None else f"{report.load_before:.2f}"
    held = "its own number" if report.numpy_threads is None else str(report.numpy_threads)
    yield f"threads: {report.torch_threads} for PyTorch, {held} for numpy; load average before the run {load}"
    yield ""
    for network in report.networks:
        work = "" if network.flops is None else f", {network.flops / 1e9:.3f} GFLOP a window"
        shapes = network.shapes
        yield (
            f"{network.name}: {network.what}; voice {network.audio_frames} of {shapes['audio_frames']} x "
            f"{shapes['audio_dim']}, face {network.vision_frames} of {shapes['vision_frames']} x "
            f"{shapes['vision_dim']}; {network.parameters / 1e6:.2f} M parameters{work}"
        )
    for rate in report.rates:
        yield (
            f"{rate.device} {rate.precision}: {rate.flops_per_s / 1e9:.0f} GFLOP/s in matrix products, "
            f"{rate.bytes_per_s / 1e9:.0f} GB/s in copies"
        )
    yield from _results(report)
    yield from _parity(report)
    if report.unavailable:
        yield ""
        yield "not measured:"
        reasons: dict[tuple[str, str], None] = {
            (gone.engine, gone.reason): None for gone in report.unavailable
        }
        yield from (f"  {engine}: {reason}" for engine, reason in reasons)


def _results(report: FusionReport) -> Iterator[str]:
    heads = f"{'n':>5}" + "".join(f"{name:>8}" for name in STATISTICS)
    for case in dict.fromkeys(result.case for result in report.results):
        rows = [result for result in report.results if result.case == case]
        yield ""
        yield f"{case}: milliseconds"
        yield f"  {'':<24}{heads}{'cv':>6}{'x eager':>9}{'x floor':>9}{'per s':>8}"
        for row in sorted(rows, key=lambda row: row.wall_ms.median):
            yield (
                f"  {row.engine:<24}{_values(row.wall_ms)}{number(row.x_eager):>9}"
                f"{_floor(row, of_wall=row.device_ms is None):>9}{number(row.windows_per_s):>8}"
            )
            if row.device_ms is not None:
                eager, floor = number(row.x_eager_device), _floor(row, of_wall=True)
                yield f"  {'  on the GPU alone':<24}{_values(row.device_ms)}{eager:>9}{floor:>9}"
        floors = {row.precision: row.floor_ms for row in rows if row.floor_ms is not None}
        if floors:
            yield "  floor: " + ", ".join(f"{number(ms)} ms in {name}" for name, ms in floors.items())
        if any(row.wall_ms.n < row.n_asked for row in rows):
            yield f"  n is less than the {rows[0].n_asked} asked for: one turn of these engines is slow"
        if any(row.wall_ms.cv > STABLE for row in rows):
            yield f"  a cv above {STABLE} says that something else was at work: run it on a quiet machine"


def _parity(report: FusionReport) -> Iterator[str]:
    yield ""
    yield "furthest from PyTorch in fp32 on the CPU, on random windows with holes and missing modalities:"
    for row in report.parity:
        verdict = "" if row.kept else f"  ABOVE the tolerance {row.tolerance}"
        where = f"{row.network}, {row.task}"
        yield f"  {where:<24}{row.engine:<24}{row.worst:>9.1e} of {row.windows}{verdict}"


def _values(values: Distribution) -> str:
    figures = "".join(f"{number(getattr(values, name)):>8}" for name in STATISTICS)
    return f"{values.n:>5}{figures}{values.cv:>6.2f}"


def _floor(row: Result, *, of_wall: bool) -> str:
    return number(row.x_floor) if of_wall else ""
