"""The reports of `emi bench live`, `emi bench bus` and `emi bench face`.

`LiveReport`: time by station, what was lost, memory and processor time. `BusReport`: hops by transport and
packet, and floods. `FaceReport`: what a picture costs, and how far the backends are from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.measurement import Distribution, UsageSample
from emi_bench.render import (
    STATISTICS,
    Bullets,
    Column,
    Figure,
    Page,
    Panel,
    Paragraph,
    Strong,
    Table,
    number,
    spark_line,
    statistics,
)
from emi_bench.report import BenchReport
from emi_models import Modality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = [
    "TOTAL",
    "BusReport",
    "CodeResponse",
    "EdgeLosses",
    "FaceCost",
    "FaceDifference",
    "FaceReport",
    "FlashBeepResult",
    "Flood",
    "HopTimes",
    "LiveReport",
]

TOTAL: Final = "total"  # the sum of all stations
SLACK_MS: Final = 5.0  # by which stamps may miss the code: how late a thread may wake to read the time
EVIDENCE: Final[Mapping[str, str]] = {"vision": "picture", "audio": "sound", "text": "words"}
STATIONS: Final[Mapping[str, str]] = {
    "face": "face stage",
    "audio": "audio stage",
    "speech": "speech stage",
    "text": "text stage",
    "bus": "bus, hop's wait",
    TOTAL: "in all",
}
TIME_COLUMNS: Final = (Column("milliseconds", words=True), *STATISTICS)
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


@dataclass(frozen=True, slots=True)
class EdgeLosses:
    """One arrow of the diagram, and what was lost on it: counts by counter, without zeros."""

    name: str
    lost: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CodeResponse:
    """How the code of light or sound came through. All times in milliseconds."""

    computed: ClassVar[tuple[str, ...]] = ("stamps_right",)

    to_estimate_ms: Distribution  # from an onset to the publication of the first estimate that shows it
    onsets: int  # that an estimate could have shown
    lag_ms: float  # at which the code fits best: from capture to publication, without any wait
    agreement: float  # share of estimates that fit the code at that lag
    runner_up: float  # that share at the best lag further than a span away: 0.5 is chance
    stamp_error_ms: tuple[float, float]  # range that the code allows; > 0: stamps are too late

    @property
    def stamps_right(self) -> bool:
        """Whether the stamps agree with the code."""
        low, high = self.stamp_error_ms
        return low - SLACK_MS <= 0 <= high + SLACK_MS


@dataclass(frozen=True, slots=True)
class FlashBeepResult:
    """Light and sound in a code, and how long they took to show."""

    light: CodeResponse
    sound: CodeResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport(BenchReport):
    """One run of the engine in `live` mode. Times in milliseconds, unless the name says otherwise."""

    bench: ClassVar[str] = "live"

    source: str  # a file's name, `camera 0`, or `flash and beep`
    parts: list[str]  # what ran
    hop_s: float
    window_s: float
    transport: str  # of the bus
    seconds: float  # capture time of the last estimate
    warm_up_s: float  # left out of every latency
    estimates: int
    face_frames_per_s: float
    stations: dict[Modality, dict[str, Distribution]]  # over packets, up to the first estimate with each
    per_estimate: dict[str, Distribution]  # the last stations, over estimates
    capture_to_estimate_ms: Distribution | None  # age of the newest evidence of an estimate
    engine_ms: Distribution | None  # the network alone, a part of the station `fusion`
    ages_ms: dict[Modality, Distribution]  # at the window's end, of the newest face, voice and word
    edges: list[EdgeLosses]
    usage: list[UsageSample]  # once a second; child processes included
    peak_rss_mib: float  # pages that processes share count for each of them
    rss_growth_mib: float  # mean of the second half minus that of the second quarter
    cpu_cores: float  # mean cores busy while running
    flash_beep: FlashBeepResult | None

    def page(self) -> Page:
        """Time by station, losses and usage; in the figure where the time goes, cores and memory."""
        return Page(f"Live: {self.source}", self.where_and_when(), list(self._blocks()), self._figure())

    def _blocks(self) -> Iterator[Block]:
        yield Bullets(self.parts)
        yield Paragraph(
            f"{self.estimates} estimates in {self.seconds:.1f} s, hop {self.hop_s:g} s, window "
            f"{self.window_s:g} s, bus {self.transport}; the first {self.warm_up_s:g} s are left out."
        )
        if self.flash_beep is not None:
            yield from self._flash_beep(self.flash_beep)
        yield Table(TIME_COLUMNS, list(self._rows()))
        yield Bullets(list(self._facts()))

    def _flash_beep(self, found: FlashBeepResult) -> Iterator[Block]:
        responses = {"light": found.light, "sound": found.sound}
        rows = [
            [Strong(f"{name} to estimate"), *statistics(response.to_estimate_ms)]
            for name, response in responses.items()
        ]
        yield Table(TIME_COLUMNS, rows)
        yield Paragraph(
            f"The wait for the next hop is included: 0 to {1000 * self.hop_s:g} ms on any machine."
        )
        for name, response in responses.items():
            low, high = response.stamp_error_ms
            verdict = "right" if response.stamps_right else "WRONG"
            text = (
                f"{name}: {response.to_estimate_ms.n} of {response.onsets} onsets seen; the code fits "
                f"{response.agreement:.0%} of estimates (elsewhere {response.runner_up:.0%}) with a lag of "
                f"{response.lag_ms:.0f} ms; stamps are {verdict} (off by {low:+.0f} to {high:+.0f} ms by the "
                "code)"
            )
            yield Paragraph(text if response.stamps_right else Strong(text))

    def _rows(self) -> Iterator[list[str]]:
        for modality, stations in self.stations.items():
            for name, values in stations.items():
                if name not in self.per_estimate and name != TOTAL:
                    yield [f"{EVIDENCE[modality]}: {STATIONS.get(name, name)}", *statistics(values)]
        for name, values in self.per_estimate.items():
            yield [f"all: {name}", *statistics(values)]
        for modality, stations in self.stations.items():
            if TOTAL in stations:
                label = Strong(f"{EVIDENCE[modality]}: {STATIONS[TOTAL]}")
                yield [label, *statistics(stations[TOTAL])]
        if self.capture_to_estimate_ms is not None:
            yield ["newest evidence's age", *statistics(self.capture_to_estimate_ms)]
        if self.engine_ms is not None:
            yield ["the network alone", *statistics(self.engine_ms)]

    def _facts(self) -> Iterator[str]:
        if self.ages_ms and self.flash_beep is None:
            ages = ", ".join(f"{name} {number(values.median)}" for name, values in self.ages_ms.items())
            yield f"newest face, voice and word at the window's end, median ms: {ages}"
        lost = [f"{edge.name}: {name} {n}" for edge in self.edges for name, n in edge.lost.items()]
        yield "lost: " + ("; ".join(lost) or f"nothing, on {len(self.edges)} edges")
        cores, memory = [s.cores for s in self.usage], [s.rss_mib for s in self.usage]
        yield (f"cores busy: mean {self.cpu_cores:.2f} {spark_line(cores)} max {max(cores, default=0.0):.2f}")
        yield (
            f"memory: peak {self.peak_rss_mib:.0f} MiB {spark_line(memory)} {self.rss_growth_mib:+.1f} MiB "
            "in the second half"
        )
        yield f"{self.face_frames_per_s:.1f} pictures a second analysed"

    def _figure(self) -> Figure:
        label = "ms, mean of each station (bus: also the wait for the hop)"
        stations = Panel(self._draw_stations, x_label=label, grid="x", legend="above", width=1.6)
        usage = Panel(self._draw_usage, x_label="seconds")
        height = 1.8 + 0.5 * len(self.stations)
        return Figure(f"Live: {self.source}, from the sensor to the sink", [[stations, usage]], height)

    def _draw_stations(self, axes: Axes) -> None:
        """Means of each station, one behind the other, because means add up; and the p95 of the whole way."""
        drawn = set()
        for place, times in enumerate(reversed(list(self.stations.values()))):
            left = 0.0
            for name, values in times.items():
                if name == TOTAL:
                    continue
                label = None if name in drawn else name
                colour = COLOURS.get(name, "black")
                axes.barh(place, values.mean, 0.6, left=left, color=colour, label=label)
                drawn.add(name)
                left += values.mean
            if TOTAL in times:
                p95 = times[TOTAL].p95
                axes.plot(p95, place, "|", color="black", markersize=18, markeredgewidth=2)
                text = f"p95 {number(p95)}"
                axes.annotate(text, (p95, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(self.stations)), [EVIDENCE[name] for name in reversed(list(self.stations))])
        axes.margins(x=0.15)

    def _draw_usage(self, axes: Axes) -> None:
        times = [sample.t_s for sample in self.usage]
        cores, memory = axes, axes.twinx()
        cores.plot(times, [sample.cores for sample in self.usage], color="tab:blue")
        cores.set_ylim(bottom=0.0)
        cores.tick_params(axis="y", colors="tab:blue")
        memory.plot(times, [sample.rss_mib for sample in self.usage], color="tab:red")
        memory.set_ylim(0.0, 1.15 * max((sample.rss_mib for sample in self.usage), default=1.0))
        memory.tick_params(axis="y", colors="tab:red")
        memory.set_ylabel("memory, MiB (red); cores busy (blue)", fontsize="small")


TRANSPORT_COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red")
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
            colour = TRANSPORT_COLOURS[transports.index(hop.transport) % len(TRANSPORT_COLOURS)]
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


COST_COLUMNS: Final = (
    Column("backend", words=True),
    Column("faces"),
    Column("n"),
    Column("with a face"),
    Column("load, CPU s"),
    Column("CPU mean"),
    Column("p50"),
    Column("p95"),
    Column("wall p50", detail=1),
)
DIFFERENCE_COLUMNS: Final = (
    Column("faces"),
    Column("n"),
    Column("other count"),
    Column("mean"),
    Column("p95"),
    Column("most"),
    Column("pose", detail=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceCost:
    """One backend over the clip's pictures; milliseconds a picture, without the first ten."""

    backend: str
    max_faces: int
    n: int
    with_face: int
    load_cpu_s: float  # imports and networks; 0 if the process had loaded them before
    cpu_mean_ms: float  # of all threads of the process
    cpu_p50_ms: float
    cpu_p95_ms: float
    wall_p50_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceDifference:
    """LiteRT against MediaPipe: of each picture, the greatest difference of its 52 blendshapes."""

    max_faces: int
    n: int  # pictures in which both see a face
    other_count: int  # pictures in which they see different numbers of faces
    mean: float
    p95: float
    most: float
    pose_most: float  # of radians and of 60 cm


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceReport(BenchReport):
    """All backends over one clip."""

    bench: ClassVar[str] = "face"

    clip: str
    width: int
    height: int
    costs: list[FaceCost]
    differences: list[FaceDifference]

    def page(self) -> Page:
        """One table of costs, one of differences; in the figure the mean cost of each."""
        blocks: list[Block] = [
            Paragraph(f"{self.clip}, {self.width} x {self.height}. Milliseconds a picture:"),
            Table(COST_COLUMNS, [_cost(cost) for cost in self.costs]),
        ]
        if self.differences:
            blocks += [
                Paragraph("LiteRT against MediaPipe, greatest difference of a picture's blendshapes:"),
                Table(DIFFERENCE_COLUMNS, [_difference(each) for each in self.differences]),
            ]
        panel = Panel(self._draw, x_label="CPU ms a picture, mean", grid="x")
        return Page(
            "The face",
            self.where_and_when(),
            blocks,
            Figure("What a picture of a face costs", [[panel]], 2.4),
        )

    def _draw(self, axes: Axes) -> None:
        costs = list(reversed(self.costs))  # the first on top
        axes.barh(range(len(costs)), [cost.cpu_mean_ms for cost in costs])
        axes.set_yticks(range(len(costs)), [f"{cost.backend}, {cost.max_faces}" for cost in costs])


def _cost(cost: FaceCost) -> list[str]:
    return [
        cost.backend,
        str(cost.max_faces),
        str(cost.n),
        str(cost.with_face),
        f"{cost.load_cpu_s:.2f}",
        *(f"{ms:.1f}" for ms in (cost.cpu_mean_ms, cost.cpu_p50_ms, cost.cpu_p95_ms, cost.wall_p50_ms)),
    ]


def _difference(each: FaceDifference) -> list[str]:
    return [
        str(each.max_faces),
        str(each.n),
        str(each.other_count),
        *(f"{value:.4f}" for value in (each.mean, each.p95, each.most, each.pose_most)),
    ]
