"""The clips of a folder: which files are media, what their ids are, and what was passed over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emi_live.errors import ConfigurationError
from emi_models.data.errors import DataError
from emi_models.data.ids import check_id, normal_id

__all__ = ["Listing", "Video", "list_videos"]

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
