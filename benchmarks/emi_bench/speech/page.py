"""The page of output: how good, how late, how steady, for 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from emi_bench.fusion.page import number
from emi_bench.speech.clips import TAIL_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from emi_bench.speech.face import FaceIndependence, Side
    from emi_bench.speech.report import ClipReport, Hearing, Pooled, SpeechReport, WordErrors
    from emi_bench.stats import Distribution

__all__ = ["counted", "page", "percent", "share"]


def page(report: SpeechReport) -> RenderableType:
    """All of a report that a person wants to see."""
    parts: list[RenderableType] = [
        Text(f"{report.machine.line()}; load before: {report.load_before:.1f}", style="dim"),
        Text(f"words: {report.recognizer}; {TAIL_S:g} s of silence after each clip", style="dim"),
    ]
    if report.pooled:
        parts += [
            _quality(report.pooled),
            _lateness(report.pooled),
            _work(report.pooled),
            *_broken(report.pooled),
        ]
    parts += _slopes(report.clips)
    if report.conditions:
        parts.append(_conditions(report.conditions))
    if report.face is not None:
        parts.append(_face(report.face))
    return Group(*parts)


def percent(errors: WordErrors | None) -> str:
    """A word error rate."""
    return "-" if errors is None or errors.rate is None else f"{100 * errors.rate:.1f} %"


def share(value: float | None) -> str:
    """Words taken back for each that stays."""
    return "-" if value is None else f"{value:.2f}"


def counted(counters: Mapping[str, int]) -> str:
    """The counters that are not zero, without the part's name."""
    return ", ".join(f"{name.removeprefix('speech.')} {count}" for name, count in counters.items() if count)


def _table(*columns: str, words: int = 2) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right", no_wrap=index > 0)
    return table


def _quality(pooled: Sequence[Pooled]) -> Table:
    table = _table("words", "clock", "clips", "said", "sub", "del", "ins", "WER", "one piece", "lost")
    for row in pooled:
        errors = row.errors
        table.add_row(
            row.kind,
            row.clock,
            str(row.clips),
            str(errors.words),
            *map(str, (errors.substitutions, errors.deletions, errors.insertions)),
            percent(errors),
            percent(row.offline),
            "-" if row.points_lost is None else f"{row.points_lost:+.1f}",
            style="bold" if row.clock != "unaware" else None,
        )
    return table


def _lateness(pooled: Sequence[Pooled]) -> Table:
    table = _table("ms after a word's end", "clock", "n", "mean", "p50", "p95", "max")
    for row in pooled:
        for name, values in (("first shown", row.first_seen_ms), ("committed", row.commit_ms)):
            table.add_row(f"{row.kind}: {name}", row.clock, *_figures(values))
    return table


def _figures(values: Distribution | None) -> list[str]:
    if values is None:
        return ["0", "-", "-", "-", "-"]
    return [
        str(values.n),
        *(f"{value:.0f}" for value in (values.mean, values.median, values.p95, values.max)),
    ]


def _work(pooled: Sequence[Pooled]) -> Table:
    table = _table("work", "clock", "audio, s", "RTF", "calls", "backlog, s", "erasure", "as written")
    for row in pooled:
        table.add_row(
            row.kind,
            row.clock,
            f"{row.audio_s:.0f}",
            number(row.real_time_factor),
            str(row.calls),
            number(row.max_backlog_s),
            share(row.erasure),
            share(row.rewriting),
        )
    return table


def _broken(pooled: Sequence[Pooled]) -> Iterator[Text]:
    for row in pooled:
        if counts := counted(row.counters):
            yield Text(f"{row.kind}, {row.clock}: {counts}", style="dim")
        if row.broken:
            yield Text(
                f"{row.kind}, {row.clock}: {row.broken} words changed after they were certain",
                style="bold red",
            )


def _slopes(clips: Sequence[ClipReport]) -> Iterator[Text]:
    for clip in clips:
        for heard in clip.heard:
            for what, line in (("lag", heard.lag_slope), ("commit latency", heard.commit_slope)):
                if line is not None:
                    yield Text(
                        f"{clip.name}, {heard.clock}: {what} grows by {line.ms_per_minute:+.1f} "
                        f"± {line.standard_error:.1f} ms a minute (n={line.n} spans)"
                    )


def _conditions(conditions: Sequence[ClipReport]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("condition", "clock", "s", "said", "heard", "WER", "RTF", "counters"):
        table.add_column(name, justify="right" if name in ("s", "said", "heard", "WER", "RTF") else "left")
    for clip in conditions:
        for heard in clip.heard:
            table.add_row(clip.name, heard.clock, *_condition(clip, heard), counted(heard.counters))
    return table


def _condition(clip: ClipReport, heard: Hearing) -> tuple[str, ...]:
    rate = percent(heard.errors)
    return f"{clip.seconds:.0f}", str(clip.words), str(heard.committed), rate, number(heard.real_time_factor)


def _face(face: FaceIndependence) -> RenderableType:
    table = _table(f"faces of {face.clip}, ms", "words", "n", "mean", "p50", "p95", "max")
    rows = ("newest picture to estimate", "each picture to sink", "face stage")
    for side, name in ((face.on, "on"), (face.off, "off")):
        for row, values in zip(rows, _values(side), strict=True):
            table.add_row(row, name, *_figures(values))
    said = "no ratio"
    if face.ratio_p50 is not None and face.ratio_p95 is not None:
        ratios = f"{face.ratio_p50:.3f} at p50, {face.ratio_p95:.3f} at p95"
        said = f"newest picture to estimate, with words / without: {ratios}"
    cores = f"cores busy {face.on.cpu_cores:.2f} / {face.off.cpu_cores:.2f}"
    rates = f"pictures a second {face.on.pictures_per_s:.1f} / {face.off.pictures_per_s:.1f}"
    return Group(table, Text(f"{said}; {cores}; {rates}; {face.turns} turns each", style="bold"))


def _values(side: Side) -> tuple[Distribution | None, ...]:
    return side.capture_to_estimate_ms, side.picture_in_all_ms, side.picture_stage_ms
