"""BAH, ambivalence and hesitancy frame by frame: its two layouts as released.

::

    ABAW-8th-BAH-train-data/                     FOLDER/ of the public release
    ├── default-split/train.txt, val.txt         ├── dataset-splits/frame-level/BAH_DB/split-0/
    │                                            │       train.txt, val.txt, test.txt
    ├── annotation.yml                           ├── video_annotation.yaml
    ├── videos/<person>/Visite_1/<name>.mp4      ├── Videos/<person>/Visite_1/<name>.mp4
    ├── cropped-aligned-faces/…/<name>.mp4/      └── cropped_aligned/…/<name>.mp4/
    │       frame-<k>.jpg                                frame-<k>.jpg
    └── transcription/…/<name>.mp4/<name>.yml

A line of a split is `path,label,transcript`; only the first two commas part it. Annotations have, for each
video, `frame_annotation: [[path/frame-<k>.jpg, 0 or 1], …]`. Some names have spaces where the same video's
folder has underscores, so a video goes by its name with underscores for both.

Sources: the public release's repository (sbelharbi/bah-dataset, BSD-3) and notebooks on the challenge's.
The data themselves were not available: this was tried on files made up after those descriptions.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from emi_models.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["BahVideo", "read_bah"]

# Our split, the file's name.
SPLITS: Final = {"train": "train.txt", "valid": "val.txt", "test": "test.txt"}
SPLIT_FOLDERS: Final = (
    "default-split",
    "dataset-splits/frame-level/BAH_DB/split-0",
    "dataset-splits/video-level/BAH_DB/split-0",
    "split-0",
)
ANNOTATIONS: Final = ("annotation.yml", "video_annotation.yaml", "video_annotation.yml")
VIDEOS: Final = ("videos", "Videos")
FACES: Final = ("cropped-aligned-faces", "cropped_aligned")
TRANSCRIPTS: Final = ("transcription", "Transcription")
_FRAME: Final = re.compile(r"frame-(\d+)\.(?:jpe?g|png)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class BahVideo:
    """One answer on video, as far as the release has it; what is not there is None or empty.

    `shows` says whether there is ambivalence or hesitancy anywhere in it. Frames `frames` (N,), counted from
    0, are labelled one by one: `labels` (N,) is 1 where it shows. `faces` is a folder for `face_pictures`.
    """

    id: str
    split: str
    shows: bool | None
    transcript: str
    video: Path | None
    faces: Path | None
    frames: NDArray[np.int64]
    labels: NDArray[np.int64]


def read_bah(folder: Path) -> tuple[BahVideo, ...]:
    """All videos of a folder in one of the two layouts, in the order of its splits.

    A folder without splits, as the challenge's test data are, gives its videos unlabelled as `test`.

    Raises:
        DataError: there is no such folder, neither splits nor videos, or a file is not as described above.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds BAH's splits and videos")
    videos = {video_id(path.name): path for path in _named_mp4(folder, VIDEOS)}
    faces = {video_id(path.name): path for path in _named_mp4(folder, FACES)}
    written = {video_id(path.name): path for path in _named_mp4(folder, TRANSCRIPTS)}
    lines = _read_splits(folder)
    if not lines:
        lines = {clip_id: ("test", None, "") for clip_id in sorted(videos | faces)}
    if not lines:
        places = ", ".join(f"{place}/train.txt" for place in SPLIT_FOLDERS)
        raise DataError(f"{folder} has no videos and none of {places}; name the folder that holds them")
    labels = _read_annotations(folder)
    nothing = np.zeros(0, np.int64)
    return tuple(
        BahVideo(
            id=clip_id,
            split=split,
            shows=shows,
            transcript=transcript or _transcript(written.get(clip_id)),
            video=videos.get(clip_id),
            faces=faces.get(clip_id),
            frames=labels.get(clip_id, (nothing, nothing))[0],
            labels=labels.get(clip_id, (nothing, nothing))[1],
        )
        for clip_id, (split, shows, transcript) in lines.items()
    )


def video_id(path: str) -> str:
    """A video's name without folders and `.mp4`, spaces as underscores: the same however it is written."""
    name = path.strip().replace("\\", "/").rpartition("/")[2]
    return re.sub(r"\.mp4$", "", name, flags=re.IGNORECASE).replace(" ", "_")


def _read_splits(folder: Path) -> dict[str, tuple[str, bool | None, str]]:
    """By id: split, label and transcript, of the first place that has splits."""
    found: dict[str, tuple[str, bool | None, str]] = {}
    for place in SPLIT_FOLDERS:
        for split, name in SPLITS.items():
            path = folder / place / name
            if not path.is_file():
                continue
            for number, line in enumerate(_text(path).split("\n"), start=1):
                if not line.strip():
                    continue
                match line.split(",", 2):
                    case [video, "0" | "1" as label, *rest] if video.strip().lower().endswith(".mp4"):
                        clip_id = video_id(video)
                    case _:
                        raise DataError(f"{path}:{number} is not path,label,transcript; take BAH's own file")
                if clip_id in found:
                    raise DataError(
                        f"{path}:{number} has {clip_id}, which is in {found[clip_id][0]}; keep one"
                    )
                found[clip_id] = (split, label == "1", rest[0].strip() if rest else "")
        if found:
            break
    return found


def _read_annotations(folder: Path) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """By id: numbers of labelled frames, in order, and their labels."""
    found = {}
    for name in ANNOTATIONS:
        path = folder / name
        if not path.is_file():
            continue
        story = _yaml(path)
        if not isinstance(story, dict):
            raise DataError(f"{path} is no table of videos; take BAH's own file")
        for video, about in story.items():
            rows = dict(_frame_labels(about, f"{path}: {video}"))
            numbers = sorted(rows)
            labels = np.array([rows[number] for number in numbers], np.int64)
            found[video_id(str(video))] = (np.array(numbers, np.int64), labels)
        break
    return found


def _frame_labels(about: object, where: str) -> Iterator[tuple[int, int]]:
    """Frame number and label of each row; `where` says whose."""
    rows = about.get("frame_annotation") if isinstance(about, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{where} has no list frame_annotation; take BAH's own file")
    for row in rows:
        match row:
            case [str() as frame, 0 | 1 as label] if number := _FRAME.search(frame):
                yield int(number[1]), int(label)
            case _:
                raise DataError(f"{where} has {row!r}, not a frame's picture and 0 or 1; take BAH's own file")


def _transcript(folder: Path | None) -> str:
    """The words in a video's folder of transcripts, "" if there are none."""
    if folder is None:
        return ""
    for path in sorted(folder.glob("*.y*ml")) if folder.is_dir() else [folder]:
        story = _yaml(path)
        if isinstance(story, dict) and isinstance(story.get("text"), str):
            return str(story["text"]).strip()
        raise DataError(f"{path} has no text; take BAH's own file")
    return ""


def _named_mp4(folder: Path, places: tuple[str, ...]) -> Iterator[Path]:
    """Files and folders called `….mp4`; those folders are not looked into, they hold a file a frame."""
    for place in places:
        for parent, folders, files in os.walk(folder / place):
            for name in sorted(name for name in (*folders, *files) if name.lower().endswith(".mp4")):
                yield Path(parent, name)
            folders[:] = sorted(name for name in folders if not name.lower().endswith(".mp4"))


def _yaml(path: Path) -> Any:  # whatever a YAML file may hold
    # The loader in C, where PyYAML was built with it: annotations have a row for each of 465,000 frames.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(_text(path), Loader=loader)  # noqa: S506  # both are safe loaders
    except yaml.YAMLError as error:
        raise DataError(f"{path} is no YAML: {' '.join(str(error).split())}; take BAH's own file") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; take BAH's own file") from error
