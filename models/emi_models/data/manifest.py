"""The table of a data set in emi-live's own layout: `manifest.csv`, one line a clip."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from emi_models.data.errors import DataError
from emi_models.data.files import replacing
from emi_models.data.ids import check_id
from emi_models.data.ratings import Rating, check_split, csv_rows, parse_targets
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["COLUMNS", "MANIFEST", "ManifestRow", "read_manifest", "write_manifest"]

MANIFEST: Final = "manifest.csv"
COLUMNS: Final = ("id", "split", "duration_s", "features", *EMOTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One clip; `features` is the path of its file below the data set's folder, with forward slashes."""

    id: str
    duration_s: float
    features: str
    rating: Rating = field(default_factory=lambda: Rating(None))


def write_manifest(folder: Path, rows: Iterable[ManifestRow]) -> None:
    """Write the table, whole or not at all; the cells of an unrated clip stay empty."""
    with replacing(folder / MANIFEST) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            targets = row.rating.targets
            cells = [""] * len(EMOTIONS) if targets is None else [str(value) for value in targets]
            writer.writerow([row.id, row.rating.split, f"{row.duration_s:.3f}", row.features, *cells])


def read_manifest(folder: Path) -> list[ManifestRow]:
    """The clips of a manifest, in its order.

    Raises:
        DataError: there is none, or a line of it is not what `write_manifest` writes; the message says which.
    """
    path = folder / MANIFEST
    rows = csv_rows(path)
    number, header = next(rows, (1, []))
    if tuple(header) != COLUMNS:
        raise DataError(f"{path}:{number} has the header {','.join(header)!r}, not {','.join(COLUMNS)!r}")
    found: dict[str, ManifestRow] = {}
    for number, row in rows:
        where = f"{path}:{number}"
        if len(row) != len(COLUMNS):
            raise DataError(f"{where} has {len(row)} cells, not {len(COLUMNS)}; mend the line")
        clip_id, split, duration, features = row[:4]
        if check_id(clip_id) in found:
            raise DataError(f"{where} has clip {clip_id} again; keep one of them")
        if features.startswith("/") or "\\" in features or ".." in features.split("/"):
            raise DataError(f"{where} has features at {features!r}; give a path below {folder}")
        found[clip_id] = ManifestRow(
            id=clip_id,
            duration_s=_seconds(duration, where),
            features=features,
            rating=Rating(parse_targets(row[4:], where), check_split(split, where)),
        )
    return list(found.values())


def _seconds(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise DataError(f"{where} has {cell!r} for duration_s; give seconds")
    return value
