"""Which clips a folder holds, and which of them are done, from which file and with which settings.

`list_videos` finds media files and their ids. `Ledger` lets an interrupted extraction be resumed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from emi_live.errors import ConfigurationError
from emi_models.data.clip import check_id, normal_id
from emi_models.errors import DataError
from emi_models.files import locked

__all__ = ["LEDGER", "Entry", "Ledger", "Listing", "Video", "claimed", "list_videos"]

# What people call media; the content is looked at later. Anything else in the folder is no clip.
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
    path: Path
    name: str
    size: int
    mtime_ns: int

    @property
    def stem_id(self) -> str:
        """The id as if the file lay at the top of the folder: what most tables of ratings write."""
        return normal_id(self.path.name)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds."""

    videos: list[Video]  # in order of their ids
    unusable: list[tuple[str, str]]  # name and reason of media that can get no id of their own
    others: dict[str, int]  # how many files that are no media, by suffix


def list_videos(folder: Path) -> Listing:
    """The media files in a folder and the folders below it; hidden ones are left out.

    The id of `00001.mp4` is `00001`, that of `train/00001.mp4` is `train__00001` (see `normal_id`).

    Raises:
        ConfigurationError: there is no such folder, or no media file in it.
    """
    if not folder.is_dir():
        what = "is a file; name the folder that holds it" if folder.exists() else "is not there"
        raise ConfigurationError(f"--videos {folder} {what}")
    found: dict[str, Video] = {}
    unusable: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts) or not path.is_file():
            continue
        if path.suffix.lower() not in SUFFIXES:
            others[path.suffix.lower() or "no suffix"] += 1
            continue
        name = below.as_posix()
        try:
            clip_id = check_id(BETWEEN.join((*below.parts[:-1], normal_id(below.name))))
        except DataError as error:
            unusable.append((name, str(error)))
            continue
        if clip_id in found:
            unusable.append((name, f"has the id of {found[clip_id].name}; rename one of them"))
            continue
        status = path.stat()
        found[clip_id] = Video(clip_id, path, name, status.st_size, status.st_mtime_ns)
    if not found:
        seen = f" (but {sum(others.values())} other files)" if others else ""
        raise ConfigurationError(f"--videos {folder} holds no media file{seen}; name the folder of the clips")
    return Listing([found[clip_id] for clip_id in sorted(found)], unusable, dict(others))


LEDGER: Final = "extracted.jsonl"
LOCK: Final = ".extract.lock"


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

    A line is added once the clip's features are in place; one that was cut off by a crash is no entry.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER
        self.entries: dict[str, Entry] = {}
        for line in self._lines():
            with suppress(ValueError, TypeError):
                entry = Entry(**json.loads(line))
                self.entries[entry.id] = entry

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

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A span in which no other run writes to the folder, which is made if need be.

    Raises:
        ConfigurationError: another run does, or the folder cannot be written to.
    """

    def busy() -> None:
        raise ConfigurationError(
            f"another `emi extract` is writing to {folder}; wait for it, or name another folder"
        )

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
