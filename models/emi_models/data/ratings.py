"""Ratings in CSV files: Hume-Vidmimic2's own header, translated here only, or our column names."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import EMOTIONS
from emi_models.data.clip import normal_id
from emi_models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from numpy.typing import NDArray

__all__ = [
    "OFFICIAL_HEADER",
    "SPLITS",
    "Rating",
    "check_split",
    "csv_rows",
    "parse_targets",
    "read_ratings",
    "read_split",
    "split_file",
    "stack_targets",
]

SPLITS: Final = ("train", "valid", "test")
# Exactly so and in this order; the same six as EMOTIONS.
MAX_LINE: Final = 1 << 20  # characters of a line; a rating has about a hundred
OFFICIAL_HEADER: Final = (
    *("Filename", "Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy"),
)
_OFFICIAL_COLUMNS: Final = {name: column for column, name in enumerate(("id", *EMOTIONS))}


@dataclass(frozen=True, slots=True, eq=False)
class Rating:
    """How one clip was rated: (6,) float32 in [0, 1] in the order of `EMOTIONS`, None if it was not.

    `split` is "" where the file does not say.
    """

    targets: NDArray[np.float32] | None
    split: str = ""


def split_file(folder: Path, split: str) -> Path:
    """Where Hume-Vidmimic2 keeps the ratings of `train`, `valid` or `test`."""
    return folder / f"{split}_split.csv"


def read_split(path: Path) -> dict[str, Rating]:
    """The ratings of one split file of Hume-Vidmimic2, by five-digit id, in the file's order.

    Cells that are all empty mean that the clip is unrated. Participants fill the test split with zeros: that
    a whole file of zeros is no rating is for its reader to know.

    Raises:
        DataError: the header is another, an id comes twice, or a rating is not a number in [0, 1].
    """
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if tuple(header) != OFFICIAL_HEADER:
        raise DataError(
            f"{path}:{number} has the header {','.join(header)!r}, not {','.join(OFFICIAL_HEADER)!r}; "
            "take the data set's own file"
        )
    return _rated(path, rows, _OFFICIAL_COLUMNS)


def read_ratings(path: Path) -> dict[str, Rating]:
    """Ratings by id (see `normal_id`), from whatever people have.

    Args:
        path: a CSV with Hume-Vidmimic2's header; or one with ours, `id` and the six of `EMOTIONS` in any
            order, perhaps with `split` among others; or a folder with `train_split.csv` and
            `valid_split.csv`, which then also say the split.

    Raises:
        DataError: it is none of these, or its content is refused (see `read_split`).
    """
    if path.is_dir():
        found: dict[str, Rating] = {}
        for split in SPLITS:
            if not split_file(path, split).is_file():
                continue
            for clip_id, rating in read_split(split_file(path, split)).items():
                if clip_id in found:
                    raise DataError(f"clip {clip_id} is in {split} and {found[clip_id].split}; keep one")
                found[clip_id] = Rating(rating.targets, split)
        if not found:
            raise DataError(f"{path} has no train_split.csv; give a CSV file or the data set's folder")
        return found
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if tuple(header) == OFFICIAL_HEADER:
        return _rated(path, rows, _OFFICIAL_COLUMNS)
    if missing := [name for name in ("id", *EMOTIONS) if header.count(name) != 1]:
        raise DataError(
            f"{path}:{number} lacks the column {missing[0]!r}, or has it twice; give id,{','.join(EMOTIONS)} "
            f"or {','.join(OFFICIAL_HEADER)}"
        )
    return _rated(path, rows, {name: header.index(name) for name in header})


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV that are not blank, with their numbers, the header first.

    Raises:
        DataError: there is no such file, or it is no CSV in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark in front
            reader = csv.reader(_lines(file), strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a CSV of ratings") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV in UTF-8: {error}; save it as one") from error


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, none longer than `MAX_LINE`: one of a gigabyte would be read into memory whole."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise csv.Error(f"a line has {MAX_LINE} characters or more")
        yield line


def stack_targets(targets: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """Ratings (N, 6), rows of NaN where a clip is unrated."""
    unrated = np.full(len(EMOTIONS), np.nan, np.float32)
    return np.array([unrated if row is None else row for row in targets], np.float32).reshape(
        -1, len(EMOTIONS)
    )


def check_split(cell: str, where: str) -> str:
    """The split that a cell names, "" if it is empty.

    Raises:
        DataError: it is another word; `where` says whose.
    """
    split = cell.strip()
    if split not in ("", *SPLITS):
        raise DataError(f"{where} has the split {split!r}; there are {', '.join(SPLITS)}")
    return split


def parse_targets(cells: Sequence[str], where: str) -> NDArray[np.float32] | None:
    """Six cells as ratings, None if all are empty.

    Raises:
        DataError: some are empty, or one is not a number in [0, 1]; `where` says whose.
    """
    if not any(cell.strip() for cell in cells):
        return None
    values = []
    for emotion, cell in zip(EMOTIONS, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not 0.0 <= value <= 1.0:
            raise DataError(
                f"{where} has {cell!r} for {emotion}, not a number from 0 to 1; rate all six or none of them"
            )
        values.append(value)
    return np.array(values, np.float32)


def _rated(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: Mapping[str, int]
) -> dict[str, Rating]:
    found: dict[str, Rating] = {}
    lines: dict[str, int] = {}
    for number, row in rows:
        if len(row) <= max(columns.values()):
            raise DataError(f"{path}:{number} has {len(row)} cells, fewer than its header; mend the line")
        clip_id = normal_id(row[columns["id"]])
        if clip_id in lines:
            raise DataError(f"{path}:{number} rates clip {clip_id} again, as line {lines[clip_id]}; keep one")
        lines[clip_id] = number
        split = check_split(row[columns["split"]] if "split" in columns else "", f"{path}:{number}")
        cells = [row[columns[emotion]] for emotion in EMOTIONS]
        found[clip_id] = Rating(parse_targets(cells, f"{path}:{number}"), split)
    return found
