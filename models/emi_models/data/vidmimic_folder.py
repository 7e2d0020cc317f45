"""What lies in a folder of Hume-Vidmimic2: which files hold which clip's features or words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_models.data.errors import DataError
from emi_models.data.frames import SUFFIXES
from emi_models.data.ids import normal_id
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from emi_models.vocabulary import Modality

__all__ = ["FolderStory", "Source", "files_by_clip", "find_source", "read_story"]

STORY: Final = "dataset.json"
NONE: Final = "none"  # in place of a folder's name: leave that modality out
# Two teams keep the test split's features in folders of their own.
BELOW: Final = ("", "test_data", "test")
USUAL: Final[Mapping[Modality, tuple[str, ...]]] = {
    "vision": ("vit",),
    "audio": ("wav2vec2",),
    "text": ("gte", "text_embeddings"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStory:
    """What `dataset.json` says where features or data are not the usual ones; all of it may be left out.

    `features` names each modality's folder; frame k is at k / `vision_hz` s, or k / `audio_hz` s.
    """

    features: Mapping[Modality, str] = field(default_factory=dict)
    encoders: Mapping[Modality, str] = field(default_factory=dict)
    vision_hz: float | None = None
    audio_hz: float | None = None
    description: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one modality's features are: each clip's file, or one file of all; and a name for their cache."""

    name: str
    files: Path | Mapping[str, Path]


def read_story(folder: Path) -> FolderStory:
    """What `dataset.json` says; keys that are not of `FolderStory` are for others.

    Raises:
        DataError: it is there and cannot be understood.
    """
    path = folder / STORY
    if not path.is_file():
        return FolderStory()
    try:
        story = json.loads(path.read_text(encoding="utf-8"))
        known = {name: story[name] for name in FolderStory.__slots__ if name in story}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be understood: {error}; mend or remove it") from error
    for name, value in known.items():
        if name in ("features", "encoders"):
            good = isinstance(value, dict) and set(value) <= set(MODALITIES)
            good = good and all(isinstance(text, str) for text in value.values())
        elif name.endswith("_hz"):
            good = isinstance(value, int | float) and 0 < value <= 1000
        else:
            good = isinstance(value, str)
        if not good:
            raise DataError(f"{path} has {value!r} for {name}; mend or remove it")
    return FolderStory(**known)


def find_source(folder: Path, modality: Modality, choice: str | None, cache: Path) -> Source | None:
    """Where the features of a modality are, None if there are none of it.

    Args:
        folder: the data set's.
        modality: which.
        choice: a folder of files `<id>.pkl`, or one file of all clips, below `folder` or anywhere; `none`; or
            None for the usual names.
        cache: where conversions are kept; one whose source is gone counts as a source.

    Raises:
        DataError: what was chosen is not there, or two files are of one clip.
    """
    if choice == NONE:
        return None
    for name in USUAL[modality] if choice is None else (choice,):
        if (folder / name).is_file():
            return Source(_cache_name(folder, name), folder / name)
        folders = [place for below in BELOW if (place := folder / below / name).is_dir()]
        key = _cache_name(folder, name)
        if folders or (cache / key).is_dir():
            files: dict[str, Path] = {}
            for place in folders:
                files |= files_by_clip(place, SUFFIXES)
            return Source(key, files)
    if choice is None:
        return None
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and path != cache)
    raise DataError(
        f"{folder} has no {modality} features {choice!r}; name a folder or file of features "
        f"(there are folders {', '.join(there) or 'of no name'}), or {NONE}"
    )


def files_by_clip(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """The files of a folder that have one of the suffixes, by the clip that their names mean.

    Whatever else lies there, `Thumbs.db` and the like, is passed over.

    Raises:
        DataError: two files are of one clip.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in suffixes or path.name.startswith("."):
            continue
        clip_id = normal_id(path.stem)
        if clip_id in files:
            raise DataError(
                f"{folder} has {files[clip_id].name} and {path.name} for one clip; keep one of them"
            )
        files[clip_id] = path
    return files


def _cache_name(folder: Path, name: str) -> str:
    """A name of its own for each folder or file of features, the same wherever the data set is moved."""
    path = (folder / name).resolve()
    if path.is_relative_to(folder.resolve()):
        return "__".join(path.relative_to(folder.resolve()).parts)
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
