"""The part of `emi bench speech`: word errors, lateness, erasure, lag, hard conditions, faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_bench.fusion.page import number
from emi_bench.report.speech_plot import draw_speech, panels
from emi_bench.report.table import STATISTICS, statistics, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import SubFigure

    from emi_bench.report.read import Report

__all__ = ["draw", "height", "lines"]

LATENESS: Final = (("first shown", "first_seen_ms"), ("committed", "commit_ms"))
FACES: Final = (
    ("newest picture to estimate", "capture_to_estimate_ms"),
    ("each picture to sink", "picture_in_all_ms"),
    ("face stage", "picture_stage_ms"),
)


def lines(report: Report) -> list[str]:
    """The part's Markdown."""
    found = report.found
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items() if value is not None)
    said = [
        f"## Speech: {found['recognizer']}",
        "",
        f"{report.machine}.",
        "",
        f"Settings of `speech`: {settings}. Words are compared in {found['normalisation']}. "
        f"{found['tail_s']:g} s of silence follow each clip.",
        "",
    ]
    if found["pooled"]:
        said += _pooled(found["pooled"])
        said += _clips(found["clips"])
    said += list(_slopes(found["clips"]))
    if found["conditions"]:
        said += _conditions(found["conditions"])
    if found["face"] is not None:
        said += _face(found["face"])
    return said


def height(report: Report) -> float:
    """Of its part of the figure, in inches."""
    return 4.4 if panels(report.found) else 1.0


def draw(figure: SubFigure, report: Report) -> None:
    """How many words are there how late; word errors; lag over time; as far as they were measured."""
    figure.suptitle(f"Speech: {report.found['recognizer']}", fontsize="large")
    draw_speech(figure, report.found)


def _pooled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    said = table(
        ("words", "clock", "clips", "said", "sub", "del", "ins", "WER", "in one piece", "points lost"),
        [
            [
                row["kind"],
                row["clock"],
                str(row["clips"]),
                str(row["errors"]["words"]),
                *(str(row["errors"][name]) for name in ("substitutions", "deletions", "insertions")),
                _percent(row["errors"]),
                _percent(row["offline"]),
                "-" if row["points_lost"] is None else f"{row['points_lost']:+.1f}",
            ]
            for row in rows
        ],
        words=2,
    )
    said += ["Milliseconds from the end of a word to when it was there, of words heard rightly:", ""]
    said += table(
        ("words", "what", "clock", *STATISTICS),
        [[row["kind"], name, row["clock"], *_statistics(row[key])] for row in rows for name, key in LATENESS],
        words=3,
    )
    said += table(
        (
            "words",
            "clock",
            "audio, s",
            "real-time factor",
            "calls",
            "most backlog, s",
            "erasure",
            "as written",
        ),
        [
            [
                row["kind"],
                row["clock"],
                f"{row['audio_s']:.0f}",
                number(row["real_time_factor"]),
                str(row["calls"]),
                number(row["max_backlog_s"]),
                number(row["erasure"]),
                number(row["rewriting"]),
            ]
            for row in rows
        ],
        words=2,
    )
    for row in rows:
        said += [f"- {row['kind']}, {row['clock']}: {_counted(row['counters']) or 'nothing counted'}"]
        if row["broken"]:
            said += [f"- **{row['kind']}, {row['clock']}: {row['broken']} certain words changed**"]
    return [*said, ""]


def _clips(clips: Sequence[Mapping[str, Any]]) -> list[str]:
    clocks = list(dict.fromkeys(heard["clock"] for clip in clips for heard in clip["heard"]))
    heads = [f"{clock}: {what}" for clock in clocks for what in ("WER", "committed p50", "p95 of a step")]
    rows = []
    for clip in clips:
        heard = {one["clock"]: one for one in clip["heard"]}
        offline = None if clip["offline"] is None else clip["offline"]["errors"]
        cells = [cell for clock in clocks for cell in _heard(heard.get(clock))]
        rows.append(
            [
                clip["name"],
                clip["times"],
                f"{clip['seconds']:.1f}",
                str(clip["words"]),
                _percent(offline),
                *cells,
            ]
        )
    said = table(("clip", "times", "s", "said", "in one piece", *heads), rows, words=2)
    notes = [f"- {clip['name']}: no times of words: {clip['note']}" for clip in clips if clip["note"]]
    return [*said, *notes, ""] if notes else said


def _heard(one: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if one is None:
        return "-", "-", "-"
    late = sorted(one["commit_ms"])
    middle = number(late[len(late) // 2]) if late else "-"
    step = "-" if one["steps_ms"] is None else number(one["steps_ms"]["p95"])
    return _percent(one["errors"]), middle, step


def _slopes(clips: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        [
            clip["name"],
            heard["clock"],
            what,
            f"{line['ms_per_minute']:+.1f}",
            f"{line['standard_error']:.1f}",
            str(line["n"]),
        ]
        for clip in clips
        for heard in clip["heard"]
        for what, line in (
            ("lag of packets", heard["lag_slope"]),
            ("lateness of certain words", heard["commit_slope"]),
        )
        if line is not None
    ]
    if rows:
        yield "Growth, by a line of least squares through means of 15 s:"
        yield ""
        yield from table(("clip", "clock", "of", "ms a minute", "standard error", "n"), rows, words=3)


def _conditions(clips: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            clip["name"],
            heard["clock"],
            _counted(heard["counters"]),
            f"{clip['seconds']:.0f}",
            str(clip["words"]),
            str(heard["committed"]),
            _percent(heard["errors"]),
            number(heard["real_time_factor"]),
        ]
        for clip in clips
        for heard in clip["heard"]
    ]
    head = ("condition", "clock", "counters", "s", "said", "committed", "WER", "real-time factor")
    return ["### Hard conditions", "", *table(head, rows, words=3)]


def _face(face: Mapping[str, Any]) -> list[str]:
    rows = [[name, side, *_statistics(face[side][key])] for name, key in FACES for side in ("on", "off")]
    said = [
        "### Faces beside words",
        "",
        f"The whole engine at real pace on {face['clip']}, {face['turns']} times with recognition (on) and "
        "as often without (off), by turns. Milliseconds.",
        "",
        *table(("of pictures", "words", *STATISTICS), rows, words=2),
    ]
    on, off = face["on"], face["off"]
    if face["ratio_p50"] is not None and face["ratio_p95"] is not None:
        said += [
            f"Newest picture to estimate, on / off: {face['ratio_p50']:.3f} at p50, {face['ratio_p95']:.3f} "
            f"at p95. Pictures a second: {on['pictures_per_s']:.1f} / {off['pictures_per_s']:.1f}. "
            f"Cores busy: {on['cpu_cores']:.2f} / {off['cpu_cores']:.2f}.",
            "",
        ]
    return said


def _percent(errors: Mapping[str, Any] | None) -> str:
    return "-" if errors is None or errors["rate"] is None else f"{100 * errors['rate']:.1f} %"


def _statistics(values: Mapping[str, Any] | None) -> list[str]:
    return ["0", *["-"] * (len(STATISTICS) - 1)] if values is None else statistics(values)


def _counted(counters: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('speech.')} {count}" for name, count in counters.items() if count)
