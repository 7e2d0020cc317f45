"""The report of `emi bench fusion`; docs/benchmarks/fusion.md explains its fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from emi_bench.measurement import Distribution
from emi_bench.render import (
    STATISTICS,
    Bullets,
    Code,
    Column,
    Figure,
    Heading,
    Page,
    Panel,
    Paragraph,
    Strong,
    Table,
    number,
    statistics,
)
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from emi_bench.render import Block
    from emi_models.networks.config import Work

__all__ = ["CaseKey", "DeviceRates", "EngineResult", "FusionReport", "NetworkFacts", "Parity", "Unavailable"]

# `contributions` is a stream in which each hop is answered four times: whole, and without each modality.
CaseTask = Literal["windows", "stream", "contributions"]
STABLE: Final = 0.25  # above this coefficient of variation, other work disturbed the run

NETWORK_COLUMNS: Final = (
    Column("network", words=True),
    Column("what", words=True),
    Column("voice frames", words=True),
    Column("face frames", words=True),
    Column("M parameters"),
    Column("GFLOP a window"),
)
RESULT_COLUMNS: Final = (
    Column("engine", words=True),
    *STATISTICS,
    Column("cv", detail=4),
    Column("x eager"),
    Column("x floor"),
    Column("windows/s"),
)
PARITY_COLUMNS: Final = (
    Column("network", words=True),
    Column("of", words=True),
    Column("engine", words=True),
    Column("largest difference"),
    Column("tolerance"),
    Column("windows", detail=1),
)
PEOPLE_COLUMNS: Final = (
    Column("network", words=True),
    Column("engine", words=True),
    Column("people"),
    Column("asked/s", detail=2),
    Column("in time/s"),
    Column("p50, ms"),
    Column("p95, ms"),
    Column("windows a call"),
    Column("dropped", detail=1),
)
# By the first words of an engine's name.
COLOURS: Final = {
    "incremental": "tab:red",
    "tensorrt-rtx": "tab:olive",
    "tensorrt": "tab:green",
    "onnxruntime": "tab:blue",
    "torch-compile": "tab:orange",
    "torch-graph": "tab:brown",
    "torch": "tab:grey",
}
# Line style and marker, by the end of an engine's name.
LOOKS: Final = {"bf16": ("--", "s"), "fp16": ("--", "o"), "2t": ("--", "s")}
# What the first panels of a network show.
SHOWN_TASKS: Final[tuple[tuple[CaseTask, str], ...]] = (
    ("windows", "one whole window"),
    ("stream", "one hop of a stream"),
)
HALF: Final = 0.17  # of a row, from its middle to where a pace is drawn


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An engine that could not be measured, and why."""

    network: str
    engine: str
    batch: int
    reason: str


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network, its windows, and the work of one window, which is known for TAEMI only."""

    name: str
    what: str
    sha256: str  # of the checkpoint
    shapes: dict[str, int]
    vision_frames: int  # present, of shapes.vision_frames
    audio_frames: int
    parameters: int
    flops: int | None
    bytes: int | None  # in fp32


@dataclass(frozen=True, slots=True)
class DeviceRates:
    """Floating-point operations and bytes a second that a device reached, with all its cores."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "fp16", "bf16"]
    flops_per_s: float
    bytes_per_s: float  # read and written

    def floor_ms(self, work: Work) -> float:
        """The least time for this work at these rates, if computing and copying overlap completely."""
        return 1e3 * max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class Parity:
    """Difference between an engine and PyTorch in fp32 on the CPU, relative to the largest intensity or 1."""

    network: str
    engine: str
    task: CaseTask
    windows: int
    worst: float
    tolerance: float  # of its precision

    @property
    def kept(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.worst <= self.tolerance


@dataclass(frozen=True, slots=True)
class CaseKey:
    """The work that engines did in turns."""

    network: str
    task: CaseTask
    batch: int
    gap_s: float  # 0: back to back

    def __str__(self) -> str:
        what = {
            "windows": f"batch {self.batch}",
            "stream": "hop by hop",
            "contributions": "hop by hop with contributions",
        }[self.task]
        pace = f"after {1e3 * self.gap_s:.0f} ms idle" if self.gap_s else "back to back"
        return f"{self.network}, {what}, {pace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """One engine in one case. Milliseconds a call; a call is one batch, or one hop."""

    case: CaseKey
    engine: str
    device: str
    precision: str
    n_asked: int  # wall_ms.n is smaller if the budget was too short
    wall_ms: Distribution  # measured by Python, from windows on the host to intensities there
    device_ms: Distribution | None  # the GPU's own time, with the windows on the GPU already
    windows_per_s: float  # batch / mean of wall_ms
    x_eager: float | None  # median of wall_ms / that of eager fp32 on the same device in the same turns
    x_eager_device: float | None  # the same for device_ms
    floor_ms: float | None
    x_floor: float | None  # median of device_ms, or else of wall_ms, / floor_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleResult:
    """So many people at real pace share one engine; milliseconds from when a window was due."""

    network: str
    engine: str
    people: int
    asked_per_s: float  # windows that were due
    windows_per_s: float  # that were computed in time
    wall_ms: Distribution | None  # None: none was
    batch: float  # windows in a call, on average
    late: int  # windows that were dropped at their deadline, which is a hop


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionReport(BenchReport):
    """One run."""

    bench: ClassVar[str] = "fusion"

    torch_threads: int
    numpy_threads: int | None  # None: the choice of numpy's library
    settings: dict[str, Any]
    seconds: float
    networks: list[NetworkFacts]
    rates: list[DeviceRates]
    unavailable: list[Unavailable]
    parity: list[Parity]
    results: list[EngineResult]
    people: list[PeopleResult] = field(default_factory=list)

    def page(self) -> Page:
        """A table for each case and one of parity; in the figure the engines of each network."""
        return Page("Fusion engines", self.where_and_when(), list(self._blocks()), self._figure())

    def _blocks(self) -> Iterator[Block]:
        threads = self.numpy_threads or "its own number"
        yield Paragraph(
            f"Threads: {self.torch_threads} for PyTorch, {threads} for numpy. Engines took turns, call by "
            f"call, in an order that changed at each turn; {self.seconds:.0f} s in all. Milliseconds; "
            "percentiles are measured values, not interpolated."
        )
        yield Table(NETWORK_COLUMNS, [_network(network) for network in self.networks])
        rates = ", ".join(
            f"{rate.device} {rate.precision} {number(rate.flops_per_s / 1e9)} GFLOP/s and "
            f"{number(rate.bytes_per_s / 1e9)} GB/s"
            for rate in self.rates
        )
        yield Paragraph(f"Measured rates of matrix products and copies, which set the floors: {rates}.")
        for case in dict.fromkeys(result.case for result in self.results):
            yield Heading(f"{str(case)[0].upper()}{str(case)[1:]}")
            yield from _case([result for result in self.results if result.case == case])
        if self.people:
            yield Heading("Many people, one engine, at real pace")
            yield Paragraph(
                "Each asks for a window a hop; the deadline of a window is a hop. Windows that come while "
                "the engine is busy are the next batch. Time is from when a window was due to its answer."
            )
            yield Table(PEOPLE_COLUMNS, [_people(row) for row in self.people])
        yield Heading("Parity with PyTorch in fp32 on the CPU")
        yield Table(PARITY_COLUMNS, [_parity(row) for row in self.parity])
        reasons = dict.fromkeys((gone.engine, gone.reason) for gone in self.unavailable)
        if reasons:
            yield Heading("Not measured")
            yield Bullets([f"{engine}: {reason}" for engine, reason in reasons])

    def _figure(self) -> Figure | None:
        """For each network: one window, one hop, and windows a second by batch."""
        engines = len(dict.fromkeys(row.engine for row in self.results))
        height = 1.2 + len(self.networks) * (1.3 + 0.36 * engines)
        rows = [
            self._panels(network.name, [row for row in self.results if row.case.network == network.name])
            for network in self.networks
        ]
        return Figure("Fusion engines: from windows on the host to intensities on the host", rows, height)

    def _panels(self, network: str, results: Sequence[EngineResult]) -> list[Panel]:
        on_gpu = "; ◆ on the GPU alone" if any(row.device_ms for row in results) else ""
        label = f"ms, median: ● back to back, ○ after idling, line to p99{on_gpu}"
        times = [
            Panel(
                partial(_draw_times, results=results, task=task),
                f"{network}: {what}",
                label,
                log="x",
                grid="x",
            )
            for task, what in SHOWN_TASKS
        ]
        batches = Panel(
            partial(_draw_throughput, results=results),
            f"{network}: windows a second",
            "windows in a call",
            log="y",
            legend="best",
            width=0.9,
        )
        return [*times, batches]


def _network(network: NetworkFacts) -> list[str]:
    shapes = network.shapes
    return [
        network.name,
        network.what,
        f"{network.audio_frames} of {shapes['audio_frames']} x {shapes['audio_dim']}",
        f"{network.vision_frames} of {shapes['vision_frames']} x {shapes['vision_dim']}",
        number(network.parameters / 1e6),
        "-" if network.flops is None else number(network.flops / 1e9, 4),
    ]


def _case(results: Sequence[EngineResult]) -> Iterator[Block]:
    rows = []
    for result in sorted(results, key=lambda result: result.wall_ms.median):
        on_gpu, times = result.device_ms, result.wall_ms
        floor = number(result.x_floor)
        ratios = [number(result.x_eager), "" if on_gpu else floor, number(result.windows_per_s)]
        rows.append([Code(result.engine), *statistics(times), f"{times.cv:.2f}", *ratios])
        if on_gpu:
            ratios = [number(result.x_eager_device), floor, ""]
            rows.append(["… on the GPU alone", *statistics(on_gpu), f"{on_gpu.cv:.2f}", *ratios])
    yield Table(RESULT_COLUMNS, rows)
    floors = {result.precision: result.floor_ms for result in results if result.floor_ms is not None}
    if floors:
        yield Paragraph(
            "Floor: " + ", ".join(f"{number(ms)} ms in {name}" for name, ms in floors.items()) + "."
        )
    if any(result.wall_ms.n < result.n_asked for result in results):
        yield Paragraph(
            f"n is less than the {results[0].n_asked} asked for, because one turn of these engines is slow."
        )
    if any(result.wall_ms.cv > STABLE for result in results):
        yield Paragraph(f"A cv above {STABLE} means that other work disturbed the run; use a quiet machine.")


def _people(row: PeopleResult) -> list[str | Code]:
    times = row.wall_ms
    return [
        row.network,
        Code(row.engine),
        str(row.people),
        number(row.asked_per_s),
        number(row.windows_per_s),
        number(None if times is None else times.median),
        number(None if times is None else times.p95),
        f"{row.batch:.1f}",
        str(row.late),
    ]


def _parity(row: Parity) -> list[str]:
    worst = f"{row.worst:.1e}"
    difference = worst if row.kept else Strong(worst)
    return [row.network, row.task, Code(row.engine), difference, str(row.tolerance), str(row.windows)]


def _draw_times(axes: Axes, results: Sequence[EngineResult], task: CaseTask) -> None:
    """Medians of batch 1 with a line to p99, fastest on top; hollow after idling; floors as dashed lines."""
    results = [row for row in results if row.case.task == task and row.case.batch == 1]
    steady = sorted((row for row in results if not row.case.gap_s), key=lambda row: -row.wall_ms.median)
    places = {row.engine: place for place, row in enumerate(steady)}
    for row in results:
        idle, times, colour = row.case.gap_s > 0, row.wall_ms, _colour(row.engine)
        place = places[row.engine] + (-HALF if idle else HALF)
        axes.plot([times.median, times.p99], [place] * 2, color=colour, linewidth=1.5, alpha=0.6)
        fill = "none" if idle else "full"
        axes.plot(times.median, place, "o", color=colour, markersize=6, fillstyle=fill)
        axes.annotate(
            number(times.median), (times.p99, place), (4, 0), textcoords="offset points",
            ha="left", va="center", fontsize="x-small", color="0.2",
        )  # fmt: skip
        if row.device_ms and not idle:
            axes.plot(row.device_ms.median, place, "D", color=colour, markersize=4)
    floors: dict[float, list[str]] = {}
    for precision, floor in {row.precision: row.floor_ms for row in results if row.floor_ms}.items():
        floors.setdefault(floor, []).append(precision)
    for floor, precisions in floors.items():
        axes.axvline(floor, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"floor {', '.join(precisions)}", (floor, 0.0), (2, 3), xycoords=("data", "axes fraction"),
            rotation=90, textcoords="offset points", ha="left", va="bottom", fontsize="x-small",
        )  # fmt: skip
    axes.margins(x=0.14)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_yticks(list(places.values()), list(places))


def _draw_throughput(axes: Axes, results: Sequence[EngineResult]) -> None:
    results = [row for row in results if row.case.task == "windows" and not row.case.gap_s]
    batches = sorted({row.case.batch for row in results})
    for engine in dict.fromkeys(row.engine for row in results):
        points = [(row.case.batch, row.windows_per_s) for row in results if row.engine == engine]
        style, marker = next((look for name, look in LOOKS.items() if engine.endswith(name)), ("-", "o"))
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, style, marker=marker, color=_colour(engine), label=engine)
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])


def _colour(engine: str) -> str:
    return next((colour for name, colour in COLOURS.items() if engine.startswith(name)), "black")
