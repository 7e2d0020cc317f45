"""What a table of a paper is made of: its rows and the runs behind them, the paper's figures and the user's.

A `Table` has the columns that it is compared by; a `Row` the paper's figures for them, and either a `Run` or
the reason why this program cannot make it. `Made` is a table with the user's own figures, and its page.

`emi_models.training.tables` has the tables of the four papers, `emi_models.training.reproduce` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from emi_models import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_models import Modality

__all__ = ["THEIRS", "YOURS", "Made", "MadeRow", "Paper", "Row", "Run", "Table", "written"]

THEIRS: Final = "paper"
YOURS: Final = "yours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training. `name` is unique within a paper: rows that give the same name share it.

    `features` are the folders for each modality, and `motion` where it is its own, in order of preference.
    `settings` are those of `TrainConfig`, nested; `network.modalities` follows from `features`. `aligning`
    are modalities that Dual-Stage's stage I alone is shown; they need features too.
    """

    name: str
    features: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    use: str = "train"
    aligning: tuple[Modality, ...] = ()

    @property
    def read(self) -> tuple[Modality, ...]:
        """The modalities whose features it needs."""
        return tuple(m for m in MODALITIES if m in self.features or _motion_for(m, self))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities of its network."""
        return tuple(m for m in self.read if m not in self.aligning)


def _motion_for(modality: str, run: Run) -> bool:
    return modality == "vision" and "motion" in run.features


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: its name in the paper, the paper's figures, and how it is made, or `why` it is not.

    `stage` is the stage whose best epoch is scored, "" for the last.
    """

    name: str
    published: tuple[float | None, ...]
    run: Run | None = None
    stage: str = ""
    why: str = ""
    note: str = ""  # how the run differs from the paper's, if it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of a paper. `columns` are measures, such as `valid`, `test`, an emotion or `w_audio`."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    statistics: str = ""  # of the data themselves, by this name; no row is a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One paper's tables. `encoders` says how the paper's differ from stored features."""

    system: str
    title: str
    tables: tuple[Table, ...]
    encoders: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRow:
    """A row with the user's own figures, in the order of the table's columns; or `why` there are none."""

    row: Row
    yours: tuple[float | None, ...]
    notes: tuple[str, ...] = ()
    why: str = ""
    failed: bool = False  # it was tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A table with both sides. `data` names the user's, `theirs` says whether they are the paper's."""

    paper: Paper
    table: Table
    data: str
    theirs: bool
    rows: tuple[MadeRow, ...]
    trained: tuple[Modality, ...] = ()  # whose encoders were trained, of each row those that it has

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known to read the table."""
        whose_data = (
            f"{THEIRS}: as published; not measured here. {YOURS}: {self.data}.",
            *(() if self.theirs else ("These are not the paper's clips: nothing here can be compared.",)),
        )
        here = f"trained with the network for {', '.join(self.trained)}" if self.trained else "frozen"
        encoders = () if self.table.statistics else (f"Encoders: {self.paper.encoders}; here {here}.",)
        return (*whose_data, *encoders, *self.table.notes)

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "paper": self.paper.system,
            "title": self.paper.title,
            "table": self.table.number,
            "data": self.data,
            "data_is_the_papers": self.theirs,
            "trained_encoders": list(self.trained),
            "columns": list(self.table.columns),
            "rows": [
                {
                    "name": made.row.name,
                    THEIRS: list(made.row.published),
                    YOURS: list(made.yours),
                    "notes": list(made.notes),
                    "why": made.why,
                }
                for made in self.rows
            ],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """The table as a page: two lines a row, the paper's and the user's."""
        columns = self.table.columns
        lines = [
            f"# {self.paper.title}, Table {self.table.number}: {self.table.title}",
            "",
            *(f"{note}\n" for note in self.notes),
            f"| row | | {' | '.join(columns)} | |",
            "|---|---|" + "---|" * (len(columns) + 1),
        ]
        for made in self.rows:
            for name, values, remark in (
                (THEIRS, made.row.published, ""),
                (YOURS, made.yours, made.why or "; ".join(made.notes)),
            ):
                cells = [written(column, value) for column, value in zip(columns, values, strict=True)]
                first = made.row.name if name == THEIRS else ""
                lines.append(f"| {first} | {name} | {' | '.join(cells)} | {remark.replace('|', '/')} |")
        return "\n".join(lines) + "\n"


def written(column: str, value: float | None) -> str:
    """A figure as tables show it; "-" where there is none."""
    if value is None:
        return "-"
    if column == "hours":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if column == "samples" or column in ("frames_min", "frames_max"):
        return f"{round(value)}"
    return f"{value:.1f}" if column.startswith(("zero", "frames")) else f"{value:.4f}"
