"""The tables of README and `truth.md`, made of what a run measured; those of the model card are in `card`.

What older checkpoints had cannot be measured by this version, so it is written down here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_bench.calibration_report import CalibrationReport
from emi_bench.render import ReportError
from emi_bench.report import from_json, read_report, to_json
from emi_bench.truth_report import TruthReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from emi_bench.truth_report import Agreement, GroupRow, TruthRow

__all__ = [
    "INTERVALS",
    "NEUTRALS",
    "SCORES",
    "SETS",
    "TABLES",
    "Run",
    "Scores",
    "as_span",
    "as_table",
    "file_of",
    "read_run",
    "shown",
    "with_neutral",
]

SETS: Final = ("faces", "voices", "words")
NEUTRALS: Final = ("running", "calibrate")  # ways to learn a neutral of one's own, measured on voices
INTERVALS: Final = "intervals"
SCORES: Final = "scores"
CHECKPOINT: Final = "checkpoint"  # the name of its rows in a report
NONE: Final = "-"
RUNTIMES: Final = ("emi-live", "ai-edge-litert", "onnxruntime")

# Version 2 on the same people: n, r, its interval, rho, AUC, its interval.
VERSION_2: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "faces": {
        "joy / happiness": ("3268", "0.768", "0.75 to 0.79", "0.653", "0.920", "0.91 to 0.93"),
        "excitement / surprise": ("3268", "0.353", "0.28 to 0.47", "0.322", "0.829", "0.80 to 0.85"),
        "empathic_pain / sadness": ("3268", "0.046", "0.01 to 0.09", "0.159", "0.566", "0.53 to 0.60"),
    },
    "voices": {
        "excitement / arousal": ("239", "0.275", "0.15 to 0.37", "0.137", "0.579", "0.43 to 0.70"),
        "joy / valence": ("239", "0.146", "-0.01 to 0.34", "0.131", "0.582", "0.49 to 0.68"),
        "joy / happiness": ("239", "0.311", "0.14 to 0.47", "0.219", "0.671", "0.61 to 0.74"),
        "empathic_pain / sadness": ("239", "0.584", "0.46 to 0.71", "0.456", "0.901", "0.85 to 0.95"),
    },
    "words": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The recipe's own scores of a checkpoint, and which file they are of."""

    version: int
    checkpoint: str
    sha256: str
    size_mb: float
    parameters: int
    hidden: int
    created_by: str
    scores: dict[str, float]

    def write(self, folder: Path) -> None:
        """Write them as JSON."""
        text = json.dumps(to_json(self), indent=1) + "\n"
        file_of(folder, SCORES).write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that was measured of one checkpoint."""

    truth: Mapping[str, TruthReport]  # by `SETS`
    neutral: Mapping[str, TruthReport]  # voices, by `NEUTRALS`
    intervals: CalibrationReport
    scores: Scores

    def values(self) -> dict[str, float | str | None]:
        """Every number that a page may name."""
        found: dict[str, float | str | None] = {
            f"scores.{name}": value for name, value in self.scores.scores.items()
        }
        about = ("version", "size_mb", "parameters", "hidden", "created_by")
        found |= {name: getattr(self.scores, name) for name in about}
        for name, report in self.truth.items():
            unread = len(report.nothing_seen)
            found |= {f"{name}.items": report.items, f"{name}.unread": unread}
            found[f"{name}.machine"] = _machine(report)
            for row in report.rows:
                found |= _agreement(f"{name}.{_dotted(row.pair)}{_by(row.by)}", row.agreement)
            for group in report.groups:
                place = f"{name}.{group.value}"
                found |= {f"{place}.{emotion}": mean for emotion, mean in group.means.items()}
                for share in group.shares:
                    found |= _agreement(f"{place}.{_dotted(share.pair)}", share.agreement)
        found |= self._with_neutral()
        for name, value in self.truth["voices"].rest.items():
            found[f"rest.{name}"] = value
        for each in self.intervals.rows:
            place = f"intervals.{each.modality}.{each.emotion}"
            found |= {
                f"{place}.{name}": getattr(each, name)
                for name in ("coverage", "width", "constant", "nothing")
            }
        for modality in {row.modality for row in self.intervals.rows}:
            rows = [row for row in self.intervals.rows if row.modality == modality]
            for name in ("width", "constant"):
                found[f"intervals.{modality}.{name}"] = sum(getattr(row, name) for row in rows) / len(rows)
        return found

    def _with_neutral(self) -> dict[str, float | str | None]:
        found: dict[str, float | str | None] = {}
        for mode, report in self.neutral.items():
            for row in report.rows:
                found |= _agreement(f"voices.{mode}.{_dotted(row.pair)}{_by(row.by)}", row.agreement)
        return found


def file_of(folder: Path, name: str) -> Path:
    """Where the measurement of this name stands."""
    return folder / f"truth-{name}.json"


def with_neutral(mode: str) -> str:
    """The name of the measurement of voices with this way to learn a neutral of one's own."""
    return f"voices-{mode}"


def read_run(folder: Path) -> Run:
    """What a run wrote to a folder.

    Raises:
        ReportError: a file is missing, or of another kind or version.
    """
    path = file_of(folder, SCORES)
    try:
        scores: Scores = from_json(Scores, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{path} cannot be read: {error}; run python -m recipes.compact --figures"
        ) from error
    truth = {name: _truth(folder, name) for name in SETS}
    neutral = {mode: _truth(folder, with_neutral(mode)) for mode in NEUTRALS}
    intervals = read_report(file_of(folder, INTERVALS))
    if not isinstance(intervals, CalibrationReport):
        raise ReportError(f"{file_of(folder, INTERVALS)} is not a report of emi bench calibrate")
    return Run(truth=truth, neutral=neutral, intervals=intervals, scores=scores)


def _truth(folder: Path, name: str) -> TruthReport:
    report = read_report(file_of(folder, name))
    if not isinstance(report, TruthReport):
        raise ReportError(f"{file_of(folder, name)} is not a report of emi bench truth")
    return report


def shown(value: float | str | None, form: str = ".3f") -> str:
    """A number as a page has it: `.2` is .86, `.2f` 0.86, `%` 86 %, `,` 3,279; text stays."""
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    if form == "%":
        return f"{100 * value:.0f} %"
    if form == ",":
        return f"{value:,.0f}"
    if form.endswith("f"):
        return f"{value:{form}}"
    text = f"{value:{form}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-").startswith("0.") else text


def _dotted(pair: str) -> str:
    return pair.replace(" / ", ".")


def _by(name: str) -> str:
    return "" if name == CHECKPOINT else f".{name.partition(' ')[0]}"


def _agreement(place: str, found: Agreement) -> dict[str, float | str | None]:
    values: dict[str, float | str | None] = {
        f"{place}.{name}": getattr(found, name) for name in ("n", "r", "rho", "auc")
    }
    return values | {f"{place}.r_interval": as_span(found.r_interval)}


def as_span(interval: tuple[float, float] | None) -> str:
    """An interval as a page has it; `-` if there is none."""
    return NONE if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


# --- tables ---


def as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; a column whose name begins with `:` is text, all others are numbers."""
    lines = [[name.removeprefix(":") for name in head]]
    lines.append(["---" if name.startswith(":") else "--:" for name in head])
    return [f"| {' | '.join(cells)} |" for cells in (*lines, *rows)]


def _machine(report: TruthReport) -> str:
    """What the numbers may depend on; times do not count here."""
    machine = report.machine
    packages = (f"{name} {machine.packages[name]}" for name in RUNTIMES if name in machine.packages)
    return ", ".join([f"{machine.cores} cores", machine.system, f"Python {machine.python}", *packages])


def _agreements(name: str, first: str) -> Callable[[Run], list[str]]:
    """A table of one set: the checkpoint in bold, version 2, and the baselines.

    Voices also with a neutral of one's own, which the baselines then have too.
    """

    def make(run: Run) -> list[str]:
        head = [f":{first}", ":by", "n", "r", "95 %", "rho", "AUC", "95 %"]
        if name == "voices":
            head += [f"{measure}, {mode}" for mode in NEUTRALS for measure in ("r", "AUC")]
        return as_table(head, _agreement_rows(run, name))

    return make


def _with_neutral(run: Run, pair: str, by: str) -> list[str]:
    """Correlation and AUC of voices with each way to learn a neutral of one's own."""
    values, place = run.values(), f"{_dotted(pair)}{_by(by)}"
    return [shown(values.get(f"voices.{mode}.{place}.{name}")) for mode in NEUTRALS for name in ("r", "auc")]


def _agreement_rows(run: Run, name: str) -> Iterator[list[str]]:
    for row in run.truth[name].rows:
        found = row.agreement
        numbers = [
            str(found.n),
            shown(found.r),
            as_span(found.r_interval),
            shown(found.rho),
            shown(found.auc),
            as_span(found.auc_interval),
        ]
        if name == "voices":
            numbers += _with_neutral(run, row.pair, row.by)
        if row.by != CHECKPOINT:
            yield [row.pair, row.by, *numbers]
            continue
        yield [f"**{cell}**" for cell in (row.pair, f"version {run.scores.version}", *numbers)]
        if row.pair in VERSION_2[name]:
            unknown = [NONE] * (2 * len(NEUTRALS)) if name == "voices" else []
            yield [row.pair, "version 2", *VERSION_2[name][row.pair], *unknown]


def _simpler(run: Run) -> list[str]:
    """Where a baseline is above the checkpoint: the checkpoint's number, and the best baseline's."""
    rows = []
    for name, report in run.truth.items():
        for own in (row for row in report.rows if row.by == CHECKPOINT):
            others = [row for row in report.rows if row.pair == own.pair and row.by != CHECKPOINT]
            cells = [_better(own, others, measure) for measure in ("r", "rho", "auc")]
            if any(cells):
                rows.append([f"{name}: {own.pair}", *cells])
    return as_table((":set: intensity / rating", ":r", ":rho", ":AUC"), rows)


def _better(own: TruthRow, others: Iterable[TruthRow], measure: str) -> str:
    """`.65, ridge .79`; empty if no baseline is above by the digits that are shown."""
    value = getattr(own.agreement, measure)
    found = [(getattr(row.agreement, measure), row.by.removeprefix("blendshape ")) for row in others]
    best = max((pair for pair in found if pair[0] is not None), default=None)
    if value is None or best is None or round(best[0], 3) <= round(value, 3):
        return ""
    return f"{shown(value, '.3')}, {best[1]} {shown(best[0], '.3')}"


def _groups(name: str) -> Callable[[Run], list[str]]:
    emotions = ("empathic_pain", "excitement", "joy")

    def cells(group: GroupRow) -> list[str]:
        return [group.value, str(group.n), *(f"{group.means[emotion]:.3f}" for emotion in emotions)]

    def make(run: Run) -> list[str]:
        head = (":group", "n", *(emotion.replace("_", " ") for emotion in emotions))
        return as_table(head, [cells(group) for group in run.truth[name].groups])

    return make


def _intervals(run: Run) -> list[str]:
    head = (
        *(":modality", ":intensity", "tested on", "coverage", "width", "constant"),
        *("shown", "shown, constant", "without any modality"),
    )
    rows = [
        [
            *(row.modality, row.emotion.replace("_", " "), str(row.tested)),
            *(f"{value:.3f}" for value in (row.coverage, row.width, row.constant)),
            *(shown(value) for value in (row.coverage_shown, row.coverage_shown_constant, row.nothing)),
        ]
        for row in run.intervals.rows
    ]
    return as_table(head, rows)


def _readme(run: Run) -> list[str]:
    values = run.values()

    def of(name: str, form: str = ".2") -> str:
        return shown(values[name], form)

    three = " ".join(of(f"words.{emotion}.r") for emotion in ("admiration", "amusement", "determination"))
    mean = " / ".join(of(f"scores.dev_{way}_pearson_mean", ".3") for way in ("written", "spoken"))
    joy = f"{of('voices.joy.happiness.auc')} (happiness), {of('voices.joy.valence.auc')} (valence)"
    head = (
        ":",
        f"words (n = {of('words.joy.n', ',')})",
        f"a face (n = {of('faces.joy.happiness.n', ',')})",
        f"a voice (n = {of('voices.joy.happiness.n', ',')})",
    )
    return as_table(
        head,
        (
            (
                *("admiration, amusement, determination", three, "from descriptions, not rated"),
                "from synthesised sound or none, not rated",
            ),
            (
                *("empathic pain", of("words.empathic_pain.r"), of("faces.empathic_pain.sadness.r")),
                of("voices.empathic_pain.sadness.auc"),
            ),
            (
                *("excitement", of("words.excitement.r"), of("faces.excitement.surprise.r")),
                of("voices.excitement.arousal.auc"),
            ),
            ("joy", of("words.joy.r"), of("faces.joy.happiness.r"), joy),
            ("mean of six, as written / as spoken", mean, "", ""),
        ),
    )


TABLES: Final[Mapping[str, Callable[[Run], list[str]]]] = {
    "faces": _agreements("faces", "face against the share of voters"),
    "voices": _agreements("voices", "voice"),
    "words": _agreements("words", "words"),
    "simpler": _simpler,
    "groups of voices": _groups("voices"),
    "groups of faces": _groups("faces"),
    "intervals": _intervals,
    "readme": _readme,
}
