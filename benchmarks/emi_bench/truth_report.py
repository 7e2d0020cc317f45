"""The report of `emi bench truth`: agreement with ratings, next to simple baselines, and by group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from emi_bench.render import Bullets, Column, Figure, Heading, Page, Panel, Paragraph, Strong, Table
from emi_bench.report import BenchReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from emi_bench.render import Block

__all__ = ["Agreement", "GroupRow", "GroupShare", "Problem", "TruthReport", "TruthRow"]

CHECKPOINT: Final = "checkpoint"
LISTED: Final = 20  # files that could not be read, by name
FIGURE_ROWS: Final = 40
DETAIL: Final = {"determination": 3, "admiration": 2, "amusement": 2}  # faces and voices are rarely rated so
COLUMNS: Final = (
    Column("modality", words=True),
    Column("intensity / rating", words=True),
    Column("by", words=True),
    Column("n", detail=1),
    Column("r"),
    Column("95 %", detail=2),
    Column("rho", detail=1),
    Column("95 %", detail=4),
    Column("AUC"),
    Column("95 %", detail=3),
    Column("high / low", detail=5),
)
GROUP_COLUMNS: Final = (
    Column("modality", words=True),
    Column("group", words=True),
    Column("n"),
    Column("r, with its 95 % interval", words=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How scores agree with ratings; each interval is (low, high), None where it cannot be computed."""

    n: int
    clusters: int  # speakers, or files where none is named
    r: float | None  # Pearson's
    r_interval: tuple[float, float] | None
    rho: float | None  # Spearman's
    rho_interval: tuple[float, float] | None
    auc: float | None  # that a high rating has the higher score
    auc_interval: tuple[float, float] | None
    n_high: int
    n_low: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthRow:
    """One intensity against one rating, with one set of modalities, by the checkpoint or by a baseline."""

    modality: str
    pair: str
    by: str
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShare:
    """The agreement within one group."""

    pair: str
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """One group of files: what the checkpoint says of them on average, and how it agrees with the ratings."""

    modality: str
    column: str
    value: str
    n: int
    means: dict[str, float]  # by intensity, in [0, 1]
    shares: list[GroupShare]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that could not be read, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthReport(BenchReport):
    """One checkpoint over one file of ratings."""

    bench: ClassVar[str] = "truth"

    ratings: str
    checkpoint: str
    engine: str
    trained_on: str  # as its header says
    items: int
    scored: int
    speakers_named: bool
    held_out_speakers: list[str]  # scored alone, and the baselines fitted on the others; empty: all
    rest: dict[str, float]  # what the checkpoint says if every modality is missing
    problems: list[Problem]
    nothing_seen: list[str]  # files in which neither a face nor sound was found
    ignored: list[str]  # columns of ratings that were compared with nothing
    rows: list[TruthRow]
    groups: list[GroupRow] = field(default_factory=list)
    baseline: str = "off"  # how a neutral of one's own was learned
    unheard: int = 0  # files with so little voice that live use would not show it to the network

    def page(self) -> Page:
        """Agreement next to the baselines, then by group, then what could not be read."""
        blocks: list[Block] = [
            Bullets(self._about()),
            Heading("Agreement with the ratings"),
            Table(COLUMNS, [_row(row) for row in self.rows]),
        ]
        if self.groups:
            blocks += [Heading("Mean estimate by group"), *self._means()]
        agreeing = [row for row in self.groups if row.shares]
        if agreeing:
            blocks += [Heading("Agreement by group"), Table(GROUP_COLUMNS, [_group(row) for row in agreeing])]
        blocks += self._unread()
        return Page("Agreement with people", self.where_and_when(), blocks, self._figure())

    def _about(self) -> list[str]:
        who = "speakers" if self.speakers_named else "files, since no speaker is named"
        held_out = (
            f"Scored: the speakers {', '.join(self.held_out_speakers)}; baselines are fitted on the others."
            if self.held_out_speakers
            else f"A baseline is not fitted on the {who.partition(',')[0]} that it scores (up to ten folds)."
        )
        rest = ", ".join(f"{name} {value:.3f}" for name, value in self.rest.items())
        lines = [
            f"Ratings {self.ratings}: {self.items} rows, {self.scored} of them scored. "
            f"Checkpoint {self.checkpoint} ({self.engine}), trained on: {self.trained_on}.",
            f"Intervals: 95 %, bootstrap over {who}. {held_out}",
            "AUC: the chance that of two files the one with the high rating (0.5 or more, or above the "
            "middle of another scale) has the higher score.",
            f"With every modality missing the checkpoint says {rest}.",
        ]
        if self.baseline != "off":
            lines.append(f"Features are relative to a neutral of one's own: {self.baseline}.")
        if self.unheard:
            lines.append(
                f"{self.unheard} files have so little voice that live use would ignore it (less than 0.9 s, "
                "as the voice gate hears it); they are judged by what there is."
            )
        if self.ignored:
            lines.append(f"Not compared with any intensity: {', '.join(self.ignored)}.")
        return lines

    def _means(self) -> list[Block]:
        emotions = list(self.rest)
        columns = [
            Column("modality", words=True),
            Column("group", words=True),
            Column("n", detail=1),
            *(Column(emotion.replace("_", " "), detail=DETAIL.get(emotion, 0)) for emotion in emotions),
        ]
        rows = [
            [
                row.modality,
                f"{row.column} {row.value}",
                str(row.n),
                *(f"{row.means[emotion]:.3f}" for emotion in emotions),
            ]
            for row in self.groups
        ]
        return [Table(columns, rows)]

    def _unread(self) -> list[Block]:
        blocks: list[Block] = []
        if self.problems:
            blocks += [
                Heading("Not read"),
                Paragraph(Strong(f"{len(self.problems)} of {self.items} files could not be read:")),
                Bullets(_first([f"{each.file}: {each.reason}" for each in self.problems])),
            ]
        if self.nothing_seen:
            blocks += [
                Heading("Nothing seen or heard"),
                Paragraph(
                    f"In {len(self.nothing_seen)} of {self.items} files no face and no sound was found:"
                ),
                Bullets(_first(self.nothing_seen)),
            ]
        return blocks

    def _figure(self) -> Figure | None:
        drawn = [row for row in self.rows if row.agreement.r is not None][:FIGURE_ROWS]
        if not drawn:
            return None
        panels = [
            Panel(lambda axes: _draw(axes, drawn, "r"), x_label="Pearson's r", grid="x", legend="above"),
            Panel(lambda axes: _draw(axes, drawn, "auc", names=False), x_label="AUC", grid="x", width=0.6),
        ]
        return Figure(f"{self.checkpoint} against {self.ratings}", [panels], 1.2 + 0.3 * len(drawn))


def _draw(axes: Axes, rows: Sequence[TruthRow], measure: str, *, names: bool = True) -> None:
    """A dot with its interval for each row, the first on top; the checkpoint's in another colour."""
    places = range(len(rows) - 1, -1, -1)
    chance = 0.0 if measure == "r" else 0.5
    axes.axvline(chance, color="0.6", linewidth=0.8)
    for kind, colour in ((CHECKPOINT, "C3"), ("baseline", "0.45")):
        label: str | None = kind
        for place, row in zip(places, rows, strict=True):
            value = getattr(row.agreement, measure)
            if value is None or (row.by == CHECKPOINT) != (kind == CHECKPOINT):
                continue
            if interval := getattr(row.agreement, f"{measure}_interval"):
                axes.plot(interval, [place, place], color=colour, linewidth=1.5)
            axes.plot([value], [place], "o", color=colour, label=label)
            label = None
    axes.set_yticks(
        list(places), [f"{row.modality}: {row.pair}, {row.by}" if names else "" for row in rows], fontsize=8
    )


def _row(row: TruthRow) -> list[str]:
    found = row.agreement
    own = row.by == CHECKPOINT
    cells = [
        row.modality,
        row.pair,
        row.by,
        str(found.n),
        _value(found.r),
        _interval(found.r_interval),
        _value(found.rho),
        _interval(found.rho_interval),
        _value(found.auc),
        _interval(found.auc_interval),
        f"{found.n_high} / {found.n_low}",
    ]
    return [Strong(cell) for cell in cells] if own else cells


def _group(row: GroupRow) -> list[str]:
    found = "; ".join(
        f"{share.pair} {_value(share.agreement.r)} [{_interval(share.agreement.r_interval)}]"
        for share in row.shares
    )
    return [row.modality, f"{row.column} {row.value}", str(row.n), found]


def _first(lines: Sequence[str]) -> list[str]:
    rest = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return [*lines[:LISTED], *rest]


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
