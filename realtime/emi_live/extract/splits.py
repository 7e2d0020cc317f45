"""Ratings and splits for the clips of a folder: from tables, from folders' names, or drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from emi_live.errors import ConfigurationError
from emi_live.extract.ledger import Video
from emi_models.data.clip import SPLITS, Rating, csv_rows, normal_id, read_ratings
from emi_models.errors import DataError

__all__ = ["SPLIT_BY", "rate"]

SPLIT_BY: Final = ("labels", "folder", "clip")  # anything else names a column of the labels
FOLDERS: Final[Mapping[str, str]] = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("val", "validation", "dev", "devel"), "valid"),
    "training": "train",
    "testing": "test",
}
HELD_OUT: Final = 0.1  # of the groups, once to validate and once to test


def rate(videos: Sequence[Video], labels: Path | None, split_by: str) -> dict[str, Rating]:
    """How each clip is rated and which split it is in, by id; clips of which nothing is known are left out.

    Args:
        videos: the clips.
        labels: a CSV of ratings or a folder of them (see `read_ratings`); None = nobody rated the clips.
        split_by: `labels`: as they say; `folder`: by the name of the first folder below the clips', such as
            train or valid; `clip`: drawn by the hashes of the ids, 80, 10 and 10 in a hundred; else a column
            of the labels, such as the speaker: drawn likewise, clips of one value together.

    Raises:
        ConfigurationError: the labels cannot be used, or rate none of the clips; or there is no such split.
    """
    known = {} if labels is None else _read(labels)
    rated = {
        video.id: rating
        for video in videos
        if (rating := known.get(video.id) or known.get(video.stem_id)) is not None
    }
    if known and not rated:
        raise ConfigurationError(
            f"--labels {labels} rates none of the clips, for example not {videos[0].id}; it has "
            f"{next(iter(known))}"
        )
    if split_by == "labels":
        return rated
    if split_by == "folder":
        splits = {video.id: _folder_split(video) for video in videos}
    elif split_by == "clip":
        splits = _draw({video.id: video.id for video in videos})
    else:
        splits = _draw(_groups(videos, labels, split_by))
    return {
        video.id: Rating(rated[video.id].targets if video.id in rated else None, splits[video.id])
        for video in videos
    }


def _read(labels: Path) -> dict[str, Rating]:
    try:
        return read_ratings(labels)
    except DataError as error:
        raise ConfigurationError(f"--labels: {error}") from error


def _folder_split(video: Video) -> str:
    top, slash, _ = video.name.partition("/")
    split = FOLDERS.get(top.lower()) if slash else None
    if split is None:
        raise ConfigurationError(
            f"--split-by folder: {video.name} lies in no folder called {', '.join(SPLITS)}; "
            "move it, or split otherwise"
        )
    return split


def _groups(videos: Sequence[Video], labels: Path | None, column: str) -> dict[str, str]:
    """The value of a column of the labels, by clip."""
    if labels is None or labels.is_dir():
        given = ", ".join(SPLIT_BY)
        raise ConfigurationError(
            f"--split-by {column}: no such way ({given}), and no CSV in --labels with such a column"
        )
    rows = csv_rows(labels)
    _, header = next(rows)
    names = {name.strip().lower() for name in header}
    place = next((header.index(name) for name in header if name.strip().lower() in ("id", "filename")), 0)
    if column not in header:
        raise ConfigurationError(f"--split-by {column}: {labels} has the columns {', '.join(sorted(names))}")
    values = {normal_id(row[place]): row[header.index(column)].strip() for _, row in rows}
    groups: dict[str, str] = {}
    for video in videos:
        value = values.get(video.id) or values.get(video.stem_id) or ""
        if not value:
            raise ConfigurationError(f"--split-by {column}: {labels} has no {column} of {video.id}")
        groups[video.id] = value
    return groups


def _draw(groups: Mapping[str, str]) -> dict[str, str]:
    """A split for each clip: the groups in order of their hashes, the first ones held out."""
    order = sorted(set(groups.values()), key=lambda group: hashlib.sha256(group.encode()).digest())
    held_out = max(1, round(HELD_OUT * len(order))) if len(order) > 1 else 0
    tested = held_out if len(order) > 2 else 0
    place = {group: number for number, group in enumerate(order)}

    def split(group: str) -> str:
        if place[group] < held_out:
            return "valid"
        return "test" if place[group] < held_out + tested else "train"

    return {clip_id: split(group) for clip_id, group in groups.items()}
