"""The report of `emi bench drift`: each way to stream, compared with one pass over the whole clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from emi_bench.measurement import Distribution
from emi_bench.render import Bullets, Column, Figure, Page, Panel, Paragraph, Strong, Table, number
from emi_bench.report import BenchReport
from emi_models.encoders.wav2vec import FrameDrift, IntensityDrift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = ["FRAME_S", "DriftBenchReport", "DriftClip", "StreamResult", "StreamSetting", "WholePass"]

FRAME_S: Final = 0.02
RANDOM_MODEL: Final = (
    "RANDOM WEIGHTS in the speech model: work, time and exactness are real, but trained weights attend in "
    "another way, so cosines and intensities are NOT those of a trained model. Give --model FOLDER."
)
RANDOM_NETWORK: Final = (
    "RANDOM WEIGHTS in the network: the changes of intensities are NOT those of a trained network. Give "
    "--checkpoint FILE."
)
EXPLAINED: Final = (
    "Each clip is streamed in each way and compared with one pass over all of it, 12 s at a time. Cosine: "
    "between a frame's features and those of the whole pass; mean, 5th percentile, worst. Δ: absolute change "
    "of the six intensities if the network gets the streamed voice in place of the other, once a second. "
    "Late: hop + held, the age of the oldest frame of a step when it comes out, without computing time. "
    "GFLOP/s: for a second of sound. Of whole: relative to a pass over the last 12 s at each hop, as with "
    "`--audio-context full`. RTF: share of the time that the model works; above 1 it cannot keep up."
)
COLUMNS: Final = (
    Column("way", words=True),
    Column("hop s"),
    Column("left s"),
    Column("held s"),
    Column("late s"),
    Column("frames", detail=4),
    Column("cosine"),
    Column("p5"),
    Column("worst", detail=2),
    Column("windows", detail=5),
    Column("mean Δ"),
    Column("max Δ"),
    Column("GFLOP/s"),
    Column("of whole", detail=1),
    Column("step ms", detail=3),
    Column("p95", detail=3),
    Column("RTF"),
)
COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
STYLES: Final = ("-", "--", ":", "-.")
LABELS: Final = {"hop_s": "hop", "left_s": "left", "hold_s": "held"}


@dataclass(frozen=True, slots=True)
class StreamSetting:
    """One way to stream."""

    strategy: Literal["cached", "recompute"]
    hop_s: float
    left_s: float
    hold_s: float

    @property
    def frames(self) -> tuple[int, int, int]:
        """New, left and held-back frames of a step."""
        new, left, edge = (round(seconds / FRAME_S) for seconds in (self.hop_s, self.left_s, self.hold_s))
        return new, left, edge

    @property
    def latency_s(self) -> float:
        """Age of the oldest frame of a step when it comes out, if computing took no time."""
        return self.hop_s + self.hold_s


@dataclass(frozen=True, slots=True)
class DriftClip:
    """Name and length of a clip."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """All clips, streamed in one way."""

    setting: StreamSetting
    latency_s: float
    features: FrameDrift
    intensities: IntensityDrift
    gflop_per_s: float  # for a second of sound
    steps_ms: Distribution | None  # time of each step
    real_time_factor: float  # share of the time that the model works; above 1 it cannot keep up


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePass:
    """One pass over 12 s, as `--audio-context full` does it at every hop."""

    gflop: float
    ms: Distribution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBenchReport(BenchReport):
    """One run of the benchmark."""

    bench: ClassVar[str] = "drift"

    torch_threads: int
    model: str
    random_model: bool
    normalises: bool
    network: str
    random_network: bool
    clips: list[DriftClip]
    whole: WholePass
    cells: list[StreamResult]

    def page(self) -> Page:
        """A table with a row for each way; in the figure cosine, change of intensities, and work."""
        blocks: list[Block] = [
            Paragraph(Strong(warning))
            for shown, warning in ((self.random_model, RANDOM_MODEL), (self.random_network, RANDOM_NETWORK))
            if shown
        ]
        rows = [list(self._row(cell)) for cell in self.cells]
        blocks += [Bullets(list(self._summary())), Paragraph(EXPLAINED), Table(COLUMNS, rows)]
        title = "Drift of the live voice"
        return Page(title, self.where_and_when(), blocks, self._figure() if self.cells else None)

    def _summary(self) -> Iterator[str]:
        """Model, network, clips, and the cost of a whole pass."""
        level = "normalised by the last 12 s" if self.normalises else "taken as it is, not normalised"
        yield f"speech model: {self.model}; sound {level}; {self.torch_threads} threads for PyTorch"
        yield f"network: {self.network}"
        names = ", ".join(clip.name for clip in self.clips)
        yield f"clips: {len(self.clips)}, {sum(clip.seconds for clip in self.clips):.1f} s: {names}"
        times = self.whole.ms
        took = "not timed" if times is None else f"{number(times.median)} ms, median of {times.n}"
        work = f"one pass over 12 s: {number(self.whole.gflop)} GFLOP, {took}"
        yield f"{work}; with --audio-context full, once a hop"

    def _row(self, cell: StreamResult) -> Iterator[str]:
        setting, features, change, steps = cell.setting, cell.features, cell.intensities, cell.steps_ms
        yield setting.strategy
        yield from (f"{seconds:g}" for seconds in (setting.hop_s, setting.left_s, setting.hold_s))
        yield f"{cell.latency_s:g}"
        yield str(features.frames)
        yield from (f"{cosine:.4f}" for cosine in (features.mean, features.p5, features.worst))
        yield str(change.windows)
        yield from (f"{value:.4f}" for value in (change.mean, change.worst))
        yield number(cell.gflop_per_s)
        yield f"{cell.gflop_per_s * setting.hop_s / self.whole.gflop:.1%}"
        yield from ("-", "-") if steps is None else (number(steps.median), number(steps.p95))
        yield f"{cell.real_time_factor:.2f}"

    def _figure(self) -> Figure:
        random = " - RANDOM WEIGHTS" if self.random_model or self.random_network else ""
        panels = [
            Panel(
                self._draw_cosine,
                x_label="left context, s",
                y_label="cosine: o mean, faint v 5th percentile",
                legend="best",
            ),
            Panel(
                self._draw_change,
                x_label="late, s: hop + held",
                y_label="mean change of the six intensities",
                legend="best",
            ),
            Panel(
                self._draw_work,
                x_label="hop, s",
                y_label="GFLOP for a second of sound",
                log="y",
                legend="best",
            ),
        ]
        return Figure(f"Drift of the live voice from one pass over the clip{random}", [panels], 4.6)

    def _lines(self, x: str, by: tuple[str, str]) -> Iterator[tuple[str, str, str, list[StreamResult]]]:
        """Name, colour, style and results of each line of a plot: results that differ in `x` alone."""
        first, second = (sorted({getattr(cell.setting, name) for cell in self.cells}) for name in by)
        strategies = list(dict.fromkeys(cell.setting.strategy for cell in self.cells))
        keys = [(strategy, a, b) for strategy in strategies for a in first for b in second]
        for strategy, a, b in keys:
            line = [
                cell
                for cell in self.cells
                if (cell.setting.strategy, *(getattr(cell.setting, name) for name in by)) == (strategy, a, b)
            ]
            if not line:
                continue
            name = f"{LABELS[by[0]]} {a:g}, {LABELS[by[1]]} {b:g}"
            name = name if len(strategies) == 1 else f"{strategy}, {name}"
            place = first.index(a) + len(first) * strategies.index(strategy)
            line.sort(key=lambda cell: float(getattr(cell.setting, x)))
            yield name, COLOURS[place % len(COLOURS)], STYLES[second.index(b) % len(STYLES)], line

    def _draw_cosine(self, axes: Axes) -> None:
        for name, colour, style, cells in self._lines("left_s", ("hop_s", "hold_s")):
            xs = [cell.setting.left_s for cell in cells]
            axes.plot(xs, [c.features.mean for c in cells], style, color=colour, marker="o", label=name)
            axes.plot(xs, [c.features.p5 for c in cells], style, color=colour, marker="v", alpha=0.35)

    def _draw_change(self, axes: Axes) -> None:
        self._draw_by_hop(axes, lambda cell: cell.latency_s, lambda cell: cell.intensities.mean)
        axes.set_ylim(bottom=0)

    def _draw_work(self, axes: Axes) -> None:
        self._draw_by_hop(axes, lambda cell: cell.setting.hop_s, lambda cell: cell.gflop_per_s)
        hops = sorted({cell.setting.hop_s for cell in self.cells})
        whole = [self.whole.gflop / hop for hop in hops]
        axes.plot(hops, whole, color="black", marker="s", label="the last 12 s at each hop")

    def _draw_by_hop(
        self, axes: Axes, x: Callable[[StreamResult], float], y: Callable[[StreamResult], float]
    ) -> None:
        for name, colour, style, cells in self._lines("hop_s", ("left_s", "hold_s")):
            axes.plot([*map(x, cells)], [*map(y, cells)], style, color=colour, marker="o", label=name)
