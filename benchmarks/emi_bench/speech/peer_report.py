"""The report of `emi bench speech --peer`: our recogniser and its peers on the same clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.measurement import Slope, percentile
from emi_bench.render import Bullets, Column, Figure, Page, Panel, Paragraph, Strong, Table, number
from emi_bench.report import BenchReport
from emi_bench.speech.report import ClipKind, WordErrors, summed_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = ["PeerReport", "PeerRun", "TestedSystem"]

COLOURS: Final = ("tab:red", "tab:blue", "tab:green", "tab:purple", "tab:brown")
DASHES: Final = ("-", "--", "-.", ":")  # by kind of clip
SYSTEM, CLIPS = Column("system", words=True), Column("clips", words=True)
ERROR_COLUMNS: Final = (
    *(CLIPS, SYSTEM, Column("n"), Column("said")),
    *(Column("sub", detail=2), Column("del", detail=2), Column("ins", detail=2)),
    *(Column("WER"), Column("erasure")),
)
TIME_COLUMNS: Final = (
    *(CLIPS, SYSTEM, Column("n"), Column("first shown p50"), Column("p95"), Column("committed p50")),
    Column("committed p95"),
)
WORK_COLUMNS: Final = (
    *(CLIPS, SYSTEM, Column("sound, s"), Column("CPU s per s"), Column("peak memory, MiB")),
    *(Column("main process", detail=1), Column("its children", detail=1)),
)
SLOPE_COLUMNS: Final = (
    *(
        Column("clip", words=True),
        SYSTEM,
        Column("mean, ms"),
        Column("ms a minute"),
        Column("standard error"),
    ),
    Column("n"),
)


@dataclass(frozen=True, slots=True)
class TestedSystem:
    """Ours, or a peer with one of its policies."""

    __test__: ClassVar[bool] = False  # no class of tests

    name: str
    settings: dict[str, str]  # as it reported them itself
    versions: dict[str, str]
    failure: str = ""  # why it never started


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """One clip through one system at real pace; if it failed, only `failure` and what is above it count."""

    system: str
    clip: str
    kind: ClipKind
    seconds: float  # with the silence after it
    failure: str = ""
    errors: WordErrors | None = None
    text: str = ""
    committed: int = 0  # words
    # Of words that were recognised correctly and have known times, in their order; ms since the word's end.
    commit_ms: list[float] = field(default_factory=list)
    first_seen_ms: list[float] = field(default_factory=list)
    taken_back: int = 0  # words that were shown and then were not
    broken: int = 0  # of these, words that were committed
    end_s: float = 0.0  # until the system said that it had finished, since the first sample
    behind_s: float = 0.0  # the most that a block of sound was given too late
    finished: bool = True  # False: it was cut off minutes after the last sample, and the words so far count
    cpu_s: float = 0.0  # of all its processes, from the first sample to its end
    peak_mib: float = 0.0  # of all its processes: proportional set size, shared pages counted once
    main_mib: float = 0.0  # the process that was started, at its own peak
    children_mib: float = 0.0  # the processes that it started, at their own peak
    lag_over_time: list[tuple[float, float]] = field(default_factory=list)  # s, mean `commit_ms` of spans
    lag_slope: Slope | None = None  # of these means


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReport(BenchReport):
    """One run of the comparison."""

    bench: ClassVar[str] = "speech-peers"

    weights: str  # name of the model whose files all systems used
    normalisation: str
    tail_s: float  # silence after each clip
    systems: list[TestedSystem]
    runs: list[PeerRun]

    def page(self) -> Page:
        """Word errors, lateness, work, growth, settings and failures; the figure has the first four."""
        title = "Speech: compared with its peers"
        panels = self._panels()
        rows = [panels[:2], panels[2:]] if len(panels) > 2 else [panels]
        figure = Figure(title, rows, 4.0 * len(rows)) if panels else None
        return Page(title, self.where_and_when(), list(self._blocks()), figure)

    def _blocks(self) -> Iterator[Block]:
        yield Paragraph(
            f"All systems use {self.weights}, on the same clips at real pace, one after the other, each in "
            f"its own processes. Words are compared in {self.normalisation}. {self.tail_s:g} s of silence "
            "follow each clip. A block of sound is given when its last sample would have been captured."
        )
        groups = self._groups()
        yield Table(ERROR_COLUMNS, [[*key, *_errors(runs)] for key, runs in groups])
        yield Paragraph("Milliseconds from the end of a word, for words that were recognised correctly:")
        yield Table(TIME_COLUMNS, [[*key, *_times(runs)] for key, runs in groups])
        yield Paragraph(
            "Processor time and memory (proportional set size) of all processes of a system; the main "
            "process and its children each at their own peak:"
        )
        yield Table(WORK_COLUMNS, [[*key, *_work(runs)] for key, runs in groups])
        if slopes := [row for run in self.runs for row in _slope(run)]:
            yield Paragraph(
                "Does the lag grow? Lateness of committed words, a line of least squares through means of "
                "15 s:"
            )
            yield Table(SLOPE_COLUMNS, slopes)
        yield Paragraph("Settings, as each system reported them:")
        yield Bullets([_described(system) for system in self.systems])
        if failures := list(self._failures()):
            yield Paragraph("What went wrong:")
            yield Bullets(failures)

    def _groups(self) -> list[tuple[tuple[str, str], list[PeerRun]]]:
        """The runs that did not fail, by kind of clip and system."""
        found: dict[tuple[str, str], list[PeerRun]] = {}
        for run in self.runs:
            if not run.failure:
                found.setdefault((run.kind, run.system), []).append(run)
        order = list(dict.fromkeys(run.kind for run in self.runs))
        return sorted(found.items(), key=lambda item: order.index(item[0][0]))  # type: ignore[arg-type]

    def _failures(self) -> Iterator[str]:
        for system in self.systems:
            if system.failure:
                yield Strong(f"{system.name} did not start: {system.failure}")
        for run in self.runs:
            if run.failure:
                yield Strong(f"{run.system}, {run.clip}: {run.failure}")
                continue
            if not run.finished:
                cut_s = run.end_s - run.seconds
                yield Strong(f"{run.system}, {run.clip}: cut off {cut_s:.0f} s after the end, with work left")
            if run.broken:
                yield Strong(f"{run.system}, {run.clip}: {run.broken} committed words changed")

    def _panels(self) -> list[Panel]:
        panels = []
        if any(run.commit_ms for run in self.runs):
            label = "s after the word's end; thick: committed, thin: first shown"
            share = "Share of words that are there"
            panels.append(Panel(self._draw_lateness, share, label, legend="lower right"))
            panels.append(Panel(self._draw_errors, "Word error rate, %", grid="y"))
            panels.append(Panel(self._draw_work, "CPU seconds per second of sound", grid="y"))
        if any(len(run.lag_over_time) > 1 for run in self.runs):
            panels.append(Panel(self._draw_lag, "Committed after, ms", "minutes", legend="best"))
        return panels

    def _colour(self, system: str) -> str:
        return COLOURS[[each.name for each in self.systems].index(system) % len(COLOURS)]

    def _draw_lateness(self, axes: Axes) -> None:
        kinds = list(dict.fromkeys(run.kind for run in self.runs))
        for (kind, system), runs in self._groups():
            style = DASHES[[str(each) for each in kinds].index(kind) % len(DASHES)]
            for name, width in (("commit_ms", 2.0), ("first_seen_ms", 0.8)):
                late = sorted(ms / 1e3 for run in runs for ms in getattr(run, name))
                if late:
                    shares = [(index + 1) / len(late) for index in range(len(late))]
                    (line,) = axes.step(
                        late,
                        shares,
                        where="post",
                        color=self._colour(system),
                        linestyle=style,
                        linewidth=width,
                    )
                    if name == "commit_ms":
                        line.set_label(f"{kind}, {system}")
        axes.set_ylim(0.0, 1.0)

    def _draw_errors(self, axes: Axes) -> None:
        rates = {
            key: summed_errors([run.errors for run in runs if run.errors]).rate
            for key, runs in self._groups()
        }
        self._draw_bars(axes, {key: 100 * rate for key, rate in rates.items() if rate is not None})

    def _draw_work(self, axes: Axes) -> None:
        self._draw_bars(axes, {key: _cpu_share(runs) for key, runs in self._groups()})

    def _draw_bars(self, axes: Axes, bars: dict[tuple[str, str], float]) -> None:
        for place, ((_, system), value) in enumerate(bars.items()):
            axes.bar(place, value, color=self._colour(system))
            axes.annotate(number(value), (place, value), ha="center", va="bottom", fontsize="x-small")
        axes.set_xticks(range(len(bars)), [kind for kind, _ in bars], fontsize="x-small")
        axes.margins(y=0.15)

    def _draw_lag(self, axes: Axes) -> None:
        for run in self.runs:
            if len(run.lag_over_time) > 1:
                minutes = [at_s / 60 for at_s, _ in run.lag_over_time]
                lags = [ms for _, ms in run.lag_over_time]
                axes.plot(minutes, lags, color=self._colour(run.system), label=run.system)
        axes.set_ylim(bottom=0.0)


def _errors(runs: Sequence[PeerRun]) -> list[str]:
    errors = summed_errors([run.errors for run in runs if run.errors is not None])
    committed = sum(run.committed for run in runs)
    erasure = number(sum(run.taken_back for run in runs) / committed) if committed else "-"
    edits = (errors.words, errors.substitutions, errors.deletions, errors.insertions)
    rate = "-" if errors.rate is None else f"{100 * errors.rate:.1f} %"
    return [str(len(runs)), *map(str, edits), rate, erasure]


def _times(runs: Sequence[PeerRun]) -> list[str]:
    cells = [str(sum(len(run.commit_ms) for run in runs))]
    for name in ("first_seen_ms", "commit_ms"):
        values = [ms for run in runs for ms in getattr(run, name)]
        cells += [f"{percentile(values, p):.0f}" if values else "-" for p in (50, 95)]
    return cells


def _work(runs: Sequence[PeerRun]) -> list[str]:
    peaks = [max(getattr(run, name) for run in runs) for name in ("peak_mib", "main_mib", "children_mib")]
    return [
        f"{sum(run.seconds for run in runs):.0f}",
        number(_cpu_share(runs)),
        *(f"{mib:.0f}" for mib in peaks),
    ]


def _cpu_share(runs: Sequence[PeerRun]) -> float:
    return sum(run.cpu_s for run in runs) / sum(run.seconds for run in runs)


def _slope(run: PeerRun) -> Iterator[list[str]]:
    if run.lag_slope is not None:
        line = run.lag_slope
        mean = sum(ms for _, ms in run.lag_over_time) / len(run.lag_over_time)
        growth = [f"{mean:.0f}", f"{line.ms_per_minute:+.1f}", f"{line.standard_error:.1f}", str(line.n)]
        yield [run.clip, run.system, *growth]


def _described(system: TestedSystem) -> str:
    parts = [
        f"{name} {value}" for found in (system.settings, system.versions) for name, value in found.items()
    ]
    return f"{system.name}: {', '.join(parts) or 'unknown, it did not start'}"
