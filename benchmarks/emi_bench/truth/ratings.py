"""The file of ratings: a CSV with one row for each picture, recording, video or sentence that people rated.

Columns: `file` (relative to the CSV), or `text` (the words that were said or written), or both; then any
numbers, and any words. A number in a column is a rating; a word names a group. `speaker` names who is seen or
heard; files of one speaker count as one in intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_live.errors import ConfigurationError
from emi_models import EMOTIONS
from emi_models.data.clip import csv_rows
from emi_models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["PAIRS", "Pair", "RatedItem", "Ratings", "high_ratings", "pairs_of", "read_ratings"]

# Which rating is compared with which intensity, if `--pair` says nothing else.
PAIRS: Final[Mapping[str, str]] = {
    **{emotion: emotion for emotion in EMOTIONS},
    "arousal": "excitement",
    "valence": "joy",
    "happiness": "joy",
    "sadness": "empathic_pain",
    "surprise": "excitement",
}
SPECIAL: Final = ("file", "text", "speaker")  # columns that are neither a rating nor a group
GROUPS: Final = ("sex", "group")  # groups, even if they are numbers
MOST_GROUPS: Final = 12  # values of another column of words; one with more is not a group


@dataclass(frozen=True, slots=True)
class RatedItem:
    """One row: a file, words, or both. A rating that is not given is absent, as is a group."""

    name: str  # as the row names it: the file, or the row's number for words alone
    path: Path | None
    text: str
    speaker: str
    ratings: Mapping[str, float]
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ratings:
    """All rows of a file of ratings, in its order."""

    path: Path
    items: Sequence[RatedItem]
    columns: tuple[str, ...]  # that hold numbers
    groups: tuple[str, ...]  # columns of words with few different values


@dataclass(frozen=True, slots=True)
class Pair:
    """A column of ratings and the intensity that it is compared with."""

    column: str
    emotion: str

    @property
    def name(self) -> str:
        """For tables: `joy`, or `excitement / arousal`."""
        return self.emotion if self.column == self.emotion else f"{self.emotion} / {self.column}"


def read_ratings(path: Path) -> Ratings:
    """Read a file of ratings.

    Raises:
        ConfigurationError: there is no such file, or a row has neither file nor text, or too few cells, or
            a column holds numbers and words.
    """
    header, rows = _table(path)
    cells = {name: [row[place].strip() for _, row in rows] for place, name in enumerate(header)}
    given = {name: column for name, column in cells.items() if name not in SPECIAL}
    numbers = {
        name: found
        for name, column in given.items()
        if name not in GROUPS and (found := _numbers(path, name, column))
    }
    columns = tuple(name for name in given if name in numbers)
    words = {name: set(column) - {""} for name, column in given.items() if name not in numbers}
    groups = tuple(
        name for name in words if words[name] and (name in GROUPS or len(words[name]) <= MOST_GROUPS)
    )
    if not columns:
        raise ConfigurationError(f"{path} has no column of numbers, so nothing was rated")
    items = []
    for index, (number, _) in enumerate(rows):
        row = {name: column[index] for name, column in cells.items()}
        file, text = row.get("file", ""), row.get("text", "")
        if not file and not text:
            raise ConfigurationError(f"{path}:{number} names neither a file nor a text")
        items.append(
            RatedItem(
                name=file or f"row {number}",
                path=path.parent / file if file else None,
                text=text,
                speaker=row.get("speaker", ""),
                ratings={name: numbers[name][index] for name in columns if row[name]},
                groups={name: row[name] for name in groups if row[name]},
            )
        )
    return Ratings(path, items, columns, groups)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and the rows with their line numbers.

    Raises:
        ConfigurationError: it is not a table with a column `file` or `text`.
    """
    try:
        lines = list(csv_rows(path))
    except DataError as error:
        raise ConfigurationError(str(error)) from error
    if not lines:
        raise ConfigurationError(f"{path} is empty; its first line must name the columns")
    header = [name.strip().lower() for name in lines[0][1]]
    if "file" not in header and "text" not in header:
        raise ConfigurationError(
            f"{path} has no column `file` and none `text`, only {', '.join(header)}; name what was rated"
        )
    if doubled := [name for name in header if header.count(name) > 1]:
        raise ConfigurationError(f"{path} has the column {doubled[0]} twice; keep one")
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise ConfigurationError(f"{path}:{number} has {len(row)} cells, its header {len(header)}")
    return header, lines[1:]


def _numbers(path: Path, name: str, column: Sequence[str]) -> list[float]:
    """The cells as numbers, NaN where empty; an empty list if none of them is a number.

    Raises:
        ConfigurationError: some are numbers, and some are words.
    """
    found, words = [], []
    for cell in column:
        try:
            value = float(cell) if cell else np.nan
        except ValueError:
            words.append(cell)
            continue
        if cell and not np.isfinite(value):
            raise ConfigurationError(f"{path}: column {name} has {cell!r}, which is not finite")
        found.append(value)
    if words and np.isfinite(found).any():
        raise ConfigurationError(f"{path}: column {name} holds numbers, but also {words[0]!r}; correct it")
    return [] if words or not np.isfinite(found).any() else found


def pairs_of(ratings: Ratings, named: Sequence[str]) -> list[Pair]:
    """What is compared: the pairs of `PAIRS` whose column is there, and those named as COLUMN=EMOTION.

    Raises:
        ConfigurationError: a named pair is not possible, or nothing can be compared.
    """
    chosen = {column: PAIRS[column] for column in ratings.columns if column in PAIRS}
    for text in named:
        column, equals, emotion = (part.strip().lower() for part in text.partition("="))
        if not equals or emotion not in EMOTIONS:
            raise ConfigurationError(
                f"--pair {text}: give COLUMN=EMOTION; emotions are {', '.join(EMOTIONS)}"
            )
        if column not in ratings.columns:
            raise ConfigurationError(
                f"--pair {text}: {ratings.path} has no such column of numbers; there are "
                f"{', '.join(ratings.columns)}"
            )
        chosen[column] = emotion
    if not chosen:
        raise ConfigurationError(
            f"{ratings.path} rates {', '.join(ratings.columns)}, none of which is compared with an "
            "intensity; say so with --pair COLUMN=EMOTION"
        )
    return [Pair(column, emotion) for column, emotion in chosen.items()]


def high_ratings(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which ratings (n,) count as high for an AUC.

    From 0.5 on if all are shares in [0, 1]; else those above the middle of the scale as far as it was used.
    """
    low, high = float(values.min()), float(values.max())
    middle = 0.5 if low >= 0 and high <= 1 else (low + high) / 2
    chosen: NDArray[np.bool_] = values >= middle if low >= 0 and high <= 1 else values > middle
    return chosen
