"""The folder of clips: which clips it holds, their ratings and splits, and which of them are done.

`list_videos` finds media files and their ids. `rate` gives each its rating and split: from tables, from the
names of folders, or drawn. `Ledger` lets an interrupted extraction be resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from emi_live.errors import ConfigurationError
from emi_live.extract.places import Place, in_folder, in_manifest, in_store, is_manifest, is_url
from emi_models import EMOTIONS
from emi_models.data.clip import (
    OFFICIAL_HEADER,
    SPLITS,
    Rating,
    check_id,
    csv_rows,
    normal_id,
    read_ratings,
)
from emi_models.errors import DataError
from emi_models.files import atomic_write, locked

__all__ = [
    "LEDGER",
    "SPLIT_BY",
    "SUFFIXES",
    "Entry",
    "Ledger",
    "Listing",
    "Video",
    "claimed",
    "leave_note",
    "list_videos",
    "noted",
    "rate",
]

# Suffixes of media files; the content is checked later. Anything else in the folder is no clip.
SUFFIXES: Final = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
        *(".ogv", ".ts", ".webm", ".wmv"),
        *(".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"),
    )
)
BETWEEN: Final = "__"  # stands for the slash in the id of a clip that lies in a subfolder


@dataclass(frozen=True, slots=True)
class Video:
    """One media file and the id of its clip; `name` is its path below the folder, with forward slashes."""

    id: str
    path: str  # of this machine, or a URL
    name: str
    size: int
    mtime_ns: int

    @property
    def stem_id(self) -> str:
        """The id as if the file lay at the top of the folder: what most tables of ratings write."""
        return normal_id(self.name.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds."""

    videos: list[Video]  # in order of their ids
    unusable: list[tuple[str, str]]  # name and reason of media files that cannot get a unique id
    others: dict[str, int]  # the number of other files, by suffix


def list_videos(given: str | Path, found_so_far: Callable[[int], None] = lambda _: None) -> Listing:
    """The media files of a folder and the folders below it, of a manifest, or of an object store.

    The id of `00001.mp4` is `00001`, that of `train/00001.mp4` is `train__00001` (see `normal_id`), unless a
    manifest says another. Hidden files are left out.

    Args:
        given: a folder, a CSV or a URL.
        found_so_far: called with the number of files, after each: a store may take minutes to list.

    Raises:
        ConfigurationError: there is no such folder, or no media file in it.
    """
    found: dict[str, Video] = {}
    unusable: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    for number, place in enumerate(_places(str(given), unusable), start=1):
        found_so_far(number)
        below = Path(place.name)
        if below.suffix.lower() not in SUFFIXES:
            others[below.suffix.lower() or "no suffix"] += 1
            continue
        try:
            named = BETWEEN.join((*below.parts[:-1], normal_id(below.name)))
            clip_id = normal_id(place.id) if place.id else check_id(named)
        except DataError as error:
            unusable.append((place.name, str(error)))
            continue
        if clip_id in found:
            unusable.append((place.name, _taken(place, clip_id, found[clip_id])))
            continue
        found[clip_id] = Video(clip_id, place.path, place.name, place.size, place.mtime_ns)
    if not found:
        seen = f" (but {sum(others.values())} other files)" if others else ""
        seen += f" ({unusable[0][0]}: {unusable[0][1]})" if unusable else ""
        raise ConfigurationError(f"--videos {given} holds no media file{seen}; name the folder of the clips")
    return Listing([found[clip_id] for clip_id in sorted(found)], unusable, dict(others))


def _taken(place: Place, clip_id: str, other: Video) -> str:
    if place.path == other.path:
        return f"is listed twice, as {clip_id}"
    if place.id or is_url(place.path):
        return f"has the id {clip_id} of {other.name}; give one of them another in a CSV with path and id"
    return f"has the id of {other.name}; rename one of them"


def _places(given: str, unusable: list[tuple[str, str]]) -> Iterator[Place]:
    path = Path(given)
    if path.is_dir():
        return in_folder(path)
    if (is_url(given) or path.is_file()) and is_manifest(given):
        return in_manifest(given, unusable)
    if is_url(given):
        return in_store(given)
    what = "is a file; name the folder that holds it" if path.exists() else "is not there"
    raise ConfigurationError(f"--videos {given} {what}")


LEDGER: Final = "extracted.jsonl"
LOCK: Final = ".extract.lock"
NOTE: Final = "features/.{}.json"  # of a clip that is done, until it is in the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One clip that was written: what made it, and what is in it."""

    id: str
    source: str
    size: int
    mtime_ns: int
    settings: str  # a fingerprint
    duration_s: float
    pictures: int
    faces: int  # frames with a face
    sounds: int  # frames of sound
    words: int

    def of(self, video: Video, settings: str) -> bool:
        """Whether this is what the file would give again."""
        return (self.source, self.size, self.mtime_ns, self.settings) == (
            video.name,
            video.size,
            video.mtime_ns,
            settings,
        )


class Ledger:
    """The entries of one folder, one JSON object a line; the last one of a clip counts.

    A line is added once the clip's features are in place; one that was cut off by a crash is no entry. Clips
    that workers finished when nobody read their answer any more are entered from their notes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LEDGER
        self.entries: dict[str, Entry] = {}
        for line in self._lines():
            with suppress(ValueError, TypeError):
                entry = Entry(**json.loads(line))
                self.entries[entry.id] = entry
        for note in sorted(folder.glob(NOTE.format("*"))):
            with suppress(ValueError, TypeError, OSError):
                self.add(Entry(**json.loads(note.read_bytes())))

    def add(self, entry: Entry) -> None:
        """Record a clip that has been written, for good.

        Raises:
            ConfigurationError: the disk is full, or the file may not be written.
        """
        self.entries[entry.id] = entry
        try:
            with self._path.open("a+b") as file:
                if file.tell() and not _ends_a_line(file):
                    file.write(b"\n")
                file.write(json.dumps(asdict(entry)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be written: {error.strerror}; make room"
            ) from error
        (self._folder / NOTE.format(entry.id)).unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []


def leave_note(folder: Path, entry: Entry) -> None:
    """Say beside a clip's features that they are whole; who writes the ledger takes the note away.

    Raises:
        WriteError: the disk is full, or the folder may not be written to.
    """
    atomic_write(folder / NOTE.format(entry.id), json.dumps(asdict(entry)))


def noted(folder: Path, entry: Entry) -> bool:
    """Whether `leave_note` has left this note in the folder."""
    note = folder / NOTE.format(entry.id)
    try:
        return bool(json.loads(note.read_bytes()) == asdict(entry))
    except (OSError, ValueError):
        return False


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A span in which no other run writes to the folder, which is made if need be.

    Raises:
        ConfigurationError: another run does, or the folder cannot be written to.
    """

    def busy() -> None:
        raise ConfigurationError(f"another run is writing to {folder}; wait for it, or name another folder")

    with ExitStack() as claim:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            claim.enter_context(locked(folder / LOCK, busy))
        except OSError as error:
            raise ConfigurationError(f"--out {folder} cannot be written to: {error.strerror}") from error
        yield


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


SPLIT_BY: Final = ("labels", "folder", "clip")  # anything else names a column of the labels
FOLDERS: Final[Mapping[str, str]] = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("val", "validation", "dev", "devel"), "valid"),
    "training": "train",
    "testing": "test",
}
HELD_OUT: Final = 0.1  # of the groups, once to validate and once to test


def rate(videos: Sequence[Video], labels: Path | None, split_by: str) -> dict[str, Rating]:
    """The rating and split of each clip, by id; clips that have neither are left out.

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
        if labels.is_file() and not set(next(csv_rows(labels), (1, []))[1]) & {
            *EMOTIONS,
            *OFFICIAL_HEADER[1:],
        }:
            return read_ratings(labels, ())  # labels of one's own: here they only say the splits
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
