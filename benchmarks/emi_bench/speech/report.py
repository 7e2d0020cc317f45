"""The report of `emi bench speech`: word errors, lateness, erasure, lag, hard conditions, and faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

from emi_bench.measurement import Distribution, Slope, percentile
from emi_bench.render import (
    STATISTICS,
    Bullets,
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
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes

    from emi_bench.render import Block
    from emi_bench.speech.scoring import WordScore

__all__ = [
    "CLOCKS",
    "ClipKind",
    "ClipReport",
    "ClockName",
    "FaceIndependence",
    "FaceTimes",
    "OfflineResult",
    "PooledClips",
    "SpeechReport",
    "StreamedClip",
    "WordErrors",
    "WordTimes",
    "pool",
    "summed_errors",
]

ClockName = Literal["unaware", "aware", "real"]
CLOCKS: Final[tuple[ClockName, ...]] = get_args(ClockName)
ClipKind = Literal["real", "prompts", "prompts-nonstop", "synthetic", "yours", "monologue"]
# Where the times of a clip's words come from. true: the synthesiser; given: a file of the clip; aligned:
# forced alignment; none: unknown.
WordTimes = Literal["true", "given", "aligned", "none"]

COLOURS: Final = {
    "in one piece": "tab:grey",
    "unaware": "tab:green",
    "aware": "tab:blue",
    "real": "tab:red",
}
DASHES: Final = ("-", "--", "-.", ":")  # by kind of clip
WORDS, CLOCK = Column("words", words=True), Column("clock", words=True)
ERROR_COLUMNS: Final = (
    WORDS,
    CLOCK,
    Column("clips", detail=1),
    Column("said"),
    Column("sub"),
    Column("del"),
    Column("ins"),
    Column("WER"),
    Column("in one piece"),
    Column("points lost"),
)
WORK_COLUMNS: Final = (
    WORDS,
    CLOCK,
    Column("audio, s"),
    Column("RTF"),
    Column("calls"),
    Column("max. backlog, s"),
    Column("erasure"),
    Column("as written"),
)
CONDITION_COLUMNS: Final = (
    Column("condition", words=True),
    CLOCK,
    Column("s"),
    Column("said"),
    Column("committed"),
    Column("WER"),
    Column("RTF"),
    Column("counters", words=True),
)
SLOPE_COLUMNS: Final = (
    Column("clip", words=True),
    CLOCK,
    Column("of", words=True),
    Column("ms a minute"),
    Column("standard error"),
    Column("n"),
)
FACE_ROWS: Final = (
    ("newest picture to estimate", "capture_to_estimate_ms"),
    ("each picture to sink", "picture_in_all_ms"),
    ("face stage", "picture_stage_ms"),
)


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Edits from the words that were said to those that were recognised."""

    words: int  # that were said
    substitutions: int
    deletions: int
    insertions: int
    rate: float | None  # word error rate; None if nothing was said

    @classmethod
    def of(cls, score: WordScore) -> WordErrors:
        """The errors of an alignment."""
        return cls(score.words, score.substitutions, score.deletions, score.insertions, score.rate)


@dataclass(frozen=True, slots=True)
class OfflineResult:
    """The same recogniser on the whole clip as one utterance, with no time limit."""

    errors: WordErrors
    seconds: float  # that it took
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedClip:
    """One clip through the speech stage by one clock."""

    computed: ClassVar[tuple[str, ...]] = ("real_time_factor",)

    clock: ClockName
    errors: WordErrors
    text: str  # all committed words, as the recogniser writes them
    committed: int  # committed words
    # Of words that were recognised rightly and have known times, in their order; ms since the word's end.
    commit_ms: list[float]
    first_seen_ms: list[float]
    audio_s: float  # the silence after the clip included
    busy_s: float
    calls: int  # requests for words to the recogniser
    steps_ms: Distribution | None
    max_backlog_s: float
    taken_back: int  # words that were shown and then were not
    rewritten: int  # the same, with changes of case and punctuation
    broken: int  # committed words that changed: must be 0
    lag_ms: Distribution | None  # of packets: from the capture of the newest sound they describe
    lag_over_time: list[tuple[float, float]] = field(default_factory=list)  # s, mean ms of spans
    lag_slope: Slope | None = None  # of these means
    commit_slope: Slope | None = None  # of the words' commit latency, by spans
    counters: dict[str, int] = field(default_factory=dict)  # speech.* of the engine's health

    @property
    def real_time_factor(self) -> float:
        """Share of the time that the stage works: above 1 it cannot keep up."""
        return self.busy_s / self.audio_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReport:
    """One clip and all its results."""

    name: str
    kind: ClipKind
    seconds: float
    words: int
    times: WordTimes
    note: str
    offline: OfflineResult | None
    heard: list[StreamedClip]  # one for each clock


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledClips:
    """All clips of a kind by one clock; every word counts the same."""

    kind: ClipKind
    clock: ClockName
    clips: int
    audio_s: float
    errors: WordErrors
    offline: WordErrors | None  # of the same clips
    points_lost: float | None  # of the word error rate by streaming, in percentage points
    commit_ms: Distribution | None
    first_seen_ms: Distribution | None
    real_time_factor: float
    calls: int
    erasure: float | None  # words taken back for each committed word
    rewriting: float | None
    broken: int
    max_backlog_s: float
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class FaceTimes:
    """Latency of faces with recognition on, or off."""

    capture_to_estimate_ms: Distribution | None  # of each estimate's newest picture, to its publication
    picture_in_all_ms: Distribution | None  # of each picture, from capture to a sink
    picture_stage_ms: Distribution | None  # of this, in the face stage
    pictures_per_s: float
    cpu_cores: float  # mean cores busy, the recogniser's process included


@dataclass(frozen=True, slots=True)
class FaceIndependence:
    """Faces with and without recognition, and the ratio of their latency: 1 is ideal."""

    clip: str
    turns: int  # of each side
    on: FaceTimes
    off: FaceTimes
    ratio_p50: float | None  # of `capture_to_estimate_ms`
    ratio_p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechReport(BenchReport):
    """One run of the benchmark."""

    bench: ClassVar[str] = "speech"

    recognizer: str
    settings: dict[str, Any]  # of the section `speech`
    normalisation: str
    tail_s: float  # silence after each clip
    clips: list[ClipReport]
    pooled: list[PooledClips]
    conditions: list[ClipReport]
    face: FaceIndependence | None = None

    def page(self) -> Page:
        """All parts that were measured; in the figure lateness, word errors, lag over time and faces."""
        panels = self._panels()
        figure = Figure(f"Speech: {self.recognizer}", [panels], 4.4) if panels else None
        return Page(f"Speech: {self.recognizer}", self.where_and_when(), list(self._blocks()), figure)

    def _blocks(self) -> Iterator[Block]:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        yield Paragraph(
            f"Settings of `speech`: {settings}. Words are compared in {self.normalisation}. "
            f"{self.tail_s:g} s of silence follow each clip."
        )
        if self.pooled:
            yield from self._pooled()
            yield self._clips()
            if notes := [f"{c.name}: no times of words: {c.note}" for c in self.clips if c.note]:
                yield Bullets(notes)
        slopes = [row for clip in self.clips for row in _slopes(clip)]
        if slopes:
            yield Paragraph("Growth, by a line of least squares through means of 15 s:")
            yield Table(SLOPE_COLUMNS, slopes)
        if self.conditions:
            yield Heading("Hard conditions")
            rows = [_condition(clip, heard) for clip in self.conditions for heard in clip.heard]
            yield Table(CONDITION_COLUMNS, rows)
        if self.face is not None:
            yield from _face(self.face)

    def _pooled(self) -> Iterator[Block]:
        yield Table(ERROR_COLUMNS, [_errors(row) for row in self.pooled])
        yield Paragraph("Milliseconds from the end of a word, for words that were recognised correctly:")
        lateness = [
            [row.kind, name, row.clock, *statistics(values)]
            for row in self.pooled
            for name, values in (("first shown", row.first_seen_ms), ("committed", row.commit_ms))
        ]
        yield Table((WORDS, Column("what", words=True), CLOCK, *STATISTICS), lateness)
        yield Table(WORK_COLUMNS, [_work(row) for row in self.pooled])
        counters = []
        for row in self.pooled:
            counters.append(f"{row.kind}, {row.clock}: {_counted(row.counters) or 'nothing counted'}")
            if row.broken:
                counters.append(Strong(f"{row.kind}, {row.clock}: {row.broken} committed words changed"))
        yield Bullets(counters)

    def _clips(self) -> Table:
        clocks = list(dict.fromkeys(heard.clock for clip in self.clips for heard in clip.heard))
        columns = [
            Column("clip", words=True),
            Column("times", words=True, detail=3),
            Column("s", detail=1),
            Column("said"),
            Column("in one piece"),
            *(
                Column(f"{clock}: {what}", detail=detail)
                for clock in clocks
                for what, detail in (("WER", 0), ("committed p50", 2), ("p95 of a step", 4))
            ),
        ]
        rows = []
        for clip in self.clips:
            by_clock = {heard.clock: heard for heard in clip.heard}
            offline = None if clip.offline is None else clip.offline.errors
            cells = [clip.name, clip.times, f"{clip.seconds:.1f}", str(clip.words), _percent(offline)]
            rows.append([*cells, *(cell for clock in clocks for cell in _streamed(by_clock.get(clock)))])
        return Table(columns, rows)

    def _panels(self) -> list[Panel]:
        panels = []
        if any(heard.commit_ms for clip in self.clips for heard in clip.heard):
            label = "s after the word's end; thick: committed, thin: first shown"
            panels.append(
                Panel(self._draw_lateness, "Share of words that are there", label, legend="lower right")
            )
            panels.append(Panel(self._draw_errors, "Word error rate, %", grid="y"))
        if any(len(heard.lag_over_time) > 1 for clip in self.clips for heard in clip.heard):
            panels.append(Panel(self._draw_lag, "Lag of packets, ms", "minutes", legend="best"))
        if self.face is not None:
            title = "Newest picture to estimate, ms: median, p95"
            panels.append(Panel(partial(_draw_faces, face=self.face), title, grid="y"))
        return panels

    def _draw_lateness(self, axes: Axes) -> None:
        """The share of words that were committed (thick) or shown (thin) after so many seconds."""
        kinds = list(dict.fromkeys(clip.kind for clip in self.clips))
        groups: dict[tuple[ClipKind, ClockName], list[StreamedClip]] = {}
        for clip in self.clips:
            for heard in clip.heard:
                if heard.commit_ms:
                    groups.setdefault((clip.kind, heard.clock), []).append(heard)
        for (kind, clock), clips in groups.items():
            style = DASHES[kinds.index(kind) % len(DASHES)]
            for name, width in (("commit_ms", 2.0), ("first_seen_ms", 0.8)):
                late = sorted(ms / 1e3 for heard in clips for ms in getattr(heard, name))
                shares = [(index + 1) / len(late) for index in range(len(late))]
                (line,) = axes.step(
                    late, shares, where="post", color=COLOURS[clock], linestyle=style, linewidth=width
                )
                if name == "commit_ms":
                    line.set_label(f"{kind}, {clock}")
        axes.set_ylim(0.0, 1.0)

    def _draw_errors(self, axes: Axes) -> None:
        """Word error rates, in one piece and by each clock."""
        bars: dict[tuple[str, str], float] = {}
        for row in self.pooled:
            for name, errors in (("in one piece", row.offline), (row.clock, row.errors)):
                if errors is not None and errors.rate is not None:
                    bars[row.kind, name] = 100 * errors.rate
        for place, ((_, name), rate) in enumerate(bars.items()):
            axes.bar(place, rate, color=COLOURS[name])
            axes.annotate(f"{rate:.1f}", (place, rate), ha="center", va="bottom", fontsize="x-small")
        labels = [f"{kind}\n{name}" for kind, name in bars]
        axes.set_xticks(range(len(bars)), labels, fontsize="x-small", rotation=0 if len(bars) < 6 else 60)
        axes.margins(y=0.15)

    def _draw_lag(self, axes: Axes) -> None:
        """Means of the packets' lag over a long clip."""
        for clip in self.clips:
            for heard in clip.heard:
                if len(heard.lag_over_time) > 1:
                    minutes = [at_s / 60 for at_s, _ in heard.lag_over_time]
                    lags = [ms for _, ms in heard.lag_over_time]
                    label = f"{clip.name}, {heard.clock}"
                    axes.plot(minutes, lags, color=COLOURS[heard.clock], label=label)
        axes.set_ylim(bottom=0.0)


def pool(clips: Sequence[ClipReport]) -> list[PooledClips]:
    """Clips by kind and clock, in the order in which they first come."""
    keys = dict.fromkeys((clip.kind, heard.clock) for clip in clips for heard in clip.heard)
    return [_pool(kind, clock, [clip for clip in clips if clip.kind == kind]) for kind, clock in keys]


def _pool(kind: ClipKind, clock: ClockName, clips: Sequence[ClipReport]) -> PooledClips:
    pairs = [(clip, heard) for clip in clips for heard in clip.heard if heard.clock == clock]
    runs = [heard for _, heard in pairs]
    errors = summed_errors([heard.errors for heard in runs])
    whole = [clip.offline.errors for clip, _ in pairs if clip.offline is not None]
    offline = summed_errors(whole) if len(whole) == len(runs) else None
    lost = None
    if offline is not None and offline.rate is not None and errors.rate is not None:
        lost = 100 * (errors.rate - offline.rate)
    committed = sum(heard.committed for heard in runs)
    counters: dict[str, int] = {}
    for heard in runs:
        for name, count in heard.counters.items():
            counters[name] = counters.get(name, 0) + count
    return PooledClips(
        kind=kind,
        clock=clock,
        clips=len(runs),
        audio_s=sum(heard.audio_s for heard in runs),
        errors=errors,
        offline=offline,
        points_lost=lost,
        commit_ms=Distribution.of([ms for heard in runs for ms in heard.commit_ms]),
        first_seen_ms=Distribution.of([ms for heard in runs for ms in heard.first_seen_ms]),
        real_time_factor=sum(heard.busy_s for heard in runs) / sum(heard.audio_s for heard in runs),
        calls=sum(heard.calls for heard in runs),
        erasure=sum(heard.taken_back for heard in runs) / committed if committed else None,
        rewriting=sum(heard.rewritten for heard in runs) / committed if committed else None,
        broken=sum(heard.broken for heard in runs),
        max_backlog_s=max(heard.max_backlog_s for heard in runs),
        counters=counters,
    )


def summed_errors(parts: Sequence[WordErrors]) -> WordErrors:
    """All edits of several clips; every word counts the same."""
    words = sum(part.words for part in parts)
    substitutions = sum(part.substitutions for part in parts)
    deletions = sum(part.deletions for part in parts)
    insertions = sum(part.insertions for part in parts)
    rate = (substitutions + deletions + insertions) / words if words else None
    return WordErrors(words, substitutions, deletions, insertions, rate)


def _errors(row: PooledClips) -> list[str]:
    errors = row.errors
    edits = (errors.words, errors.substitutions, errors.deletions, errors.insertions)
    lost = "-" if row.points_lost is None else f"{row.points_lost:+.1f}"
    rates = (_percent(errors), _percent(row.offline), lost)
    return [row.kind, row.clock, str(row.clips), *map(str, edits), *rates]


def _work(row: PooledClips) -> list[str]:
    factor, backlog = number(row.real_time_factor), number(row.max_backlog_s)
    erasure = (number(row.erasure), number(row.rewriting))
    return [row.kind, row.clock, f"{row.audio_s:.0f}", factor, str(row.calls), backlog, *erasure]


def _streamed(heard: StreamedClip | None) -> tuple[str, str, str]:
    if heard is None:
        return "-", "-", "-"
    median = number(percentile(heard.commit_ms, 50)) if heard.commit_ms else "-"
    step = "-" if heard.steps_ms is None else number(heard.steps_ms.p95)
    return _percent(heard.errors), median, step


def _slopes(clip: ClipReport) -> Iterator[list[str]]:
    for heard in clip.heard:
        for what, line in (
            ("lag of packets", heard.lag_slope),
            ("lateness of committed words", heard.commit_slope),
        ):
            if line is not None:
                rise, error = f"{line.ms_per_minute:+.1f}", f"{line.standard_error:.1f}"
                yield [clip.name, heard.clock, what, rise, error, str(line.n)]


def _condition(clip: ClipReport, heard: StreamedClip) -> list[str]:
    rates = (_percent(heard.errors), number(heard.real_time_factor))
    counts = (f"{clip.seconds:.0f}", str(clip.words), str(heard.committed))
    return [clip.name, heard.clock, *counts, *rates, _counted(heard.counters)]


def _face(face: FaceIndependence) -> Iterator[Block]:
    yield Heading("Faces with and without words")
    yield Paragraph(
        f"The whole engine at real pace on {face.clip}, {face.turns} times with recognition (on) and as "
        "often without (off), in turns. Milliseconds."
    )
    rows = [
        [name, side, *statistics(getattr(times, key))]
        for name, key in FACE_ROWS
        for side, times in (("on", face.on), ("off", face.off))
    ]
    yield Table((Column("of pictures", words=True), WORDS, *STATISTICS), rows)
    if face.ratio_p50 is not None and face.ratio_p95 is not None:
        on, off = face.on, face.off
        yield Paragraph(
            f"Newest picture to estimate, on / off: {face.ratio_p50:.3f} at p50, {face.ratio_p95:.3f} at "
            f"p95. Pictures a second: {on.pictures_per_s:.1f} / {off.pictures_per_s:.1f}. "
            f"Cores busy: {on.cpu_cores:.2f} / {off.cpu_cores:.2f}."
        )


def _draw_faces(axes: Axes, face: FaceIndependence) -> None:
    """Medians, with a line to the 95th percentile."""
    for place, (times, colour) in enumerate(((face.off, "tab:grey"), (face.on, "tab:blue"))):
        values = times.capture_to_estimate_ms
        if values is not None:
            axes.bar(place, values.median, color=colour)
            axes.plot([place, place], [values.median, values.p95], color="black")
    axes.set_xticks((0, 1), ("without words", "with words"), fontsize="small")


def _percent(errors: WordErrors | None) -> str:
    return "-" if errors is None or errors.rate is None else f"{100 * errors.rate:.1f} %"


def _counted(counters: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('speech.')} {count}" for name, count in counters.items() if count)
