"""BAH, a data set of ambivalence and hesitancy frame by frame, in its two released layouts.

::

    ABAW-8th-BAH-train-data/                     FOLDER/ of the public release
    ├── default-split/train.txt, val.txt         ├── dataset-splits/frame-level/BAH_DB/split-0/
    │                                            │       train.txt, val.txt, test.txt
    ├── annotation.yml                           ├── video_annotation.yaml
    ├── videos/<person>/Visite_1/<name>.mp4      ├── Videos/<person>/Visite_1/<name>.mp4
    ├── cropped-aligned-faces/…/<name>.mp4/      └── cropped_aligned/…/<name>.mp4/
    │       frame-<k>.jpg                                frame-<k>.jpg
    └── transcription/…/<name>.mp4/<name>.yml

A line of a split is `path,label,transcript`; only the first two commas separate fields. Annotations have,
for each video, `frame_annotation: [[path/frame-<k>.jpg, 0 or 1], …]`. Some names have spaces where the same
video's folder has underscores, so all names are compared with underscores.

Sources: the public release's repository (sbelharbi/bah-dataset, BSD-3), and notebooks for the challenge's
layout. The data were not available: the reader was tested on files made from these descriptions.

A transcript's file has `text`, and mostly `chunks: [{text, timestamp: [start, end]}, …]` in seconds, as
Whisper gives them: one word each, or a few. `emi_models.data.bah_chunks` cuts the videos for training.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from emi_models.errors import DataError
from emi_models.marked import TimedWord, spread_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["BahVideo", "is_bah", "read_bah", "video_id"]

# Our name of the split, and the name of its file.
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
    """One answer on video; what the release does not have is None or empty.

    `shows` says whether there is ambivalence or hesitancy anywhere in the video. The frames `frames` (N,),
    counted from 0, have labels of their own: `labels` (N,), 1 where it shows. `faces` is a folder for
    `face_pictures`. `words` have the release's times. `place` is the video's path below the folder of videos.
    """

    id: str
    split: str
    shows: bool | None
    transcript: str
    video: Path | None
    faces: Path | None
    frames: NDArray[np.int64]
    labels: NDArray[np.int64]
    words: tuple[TimedWord, ...] = ()
    place: str = ""


def is_bah(folder: Path) -> bool:
    """Whether a folder looks like one of the two layouts; looks at names only."""
    splits = any((folder / place / name).is_file() for place in SPLIT_FOLDERS for name in SPLITS.values())
    if splits or any((folder / name).is_file() for name in ANNOTATIONS):
        return True
    return any(map(Path.is_dir, map(folder.joinpath, VIDEOS))) and any(
        map(Path.is_dir, map(folder.joinpath, TRANSCRIPTS))
    )


def read_bah(folder: Path) -> tuple[BahVideo, ...]:
    """All videos of a folder in one of the two layouts, in the order of its splits.

    In a folder without splits, like the challenge's test data, all videos are unlabelled and in `test`.

    Raises:
        DataError: there is no such folder, it has neither splits nor videos, or a file has another format.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the one with BAH's splits and videos")
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
    found = []
    for clip_id, (split, shows, transcript) in lines.items():
        text, words = _transcript(written.get(clip_id))
        video = videos.get(clip_id)
        found.append(
            BahVideo(
                id=clip_id,
                split=split,
                shows=shows,
                transcript=transcript or text,
                video=video,
                faces=faces.get(clip_id),
                frames=labels.get(clip_id, (nothing, nothing))[0],
                labels=labels.get(clip_id, (nothing, nothing))[1],
                words=words,
                place="" if video is None else _below(folder, video),
            )
        )
    return tuple(found)


def _below(folder: Path, video: Path) -> str:
    """A video's path below the folder of videos, with forward slashes."""
    return video.relative_to(folder).as_posix().partition("/")[2]


def video_id(path: str) -> str:
    """A video's name without folders and `.mp4`, with underscores for spaces."""
    name = path.strip().replace("\\", "/").rpartition("/")[2]
    return re.sub(r"\.mp4$", "", name, flags=re.IGNORECASE).replace(" ", "_")


def _read_splits(folder: Path) -> dict[str, tuple[str, bool | None, str]]:
    """By id: split, label and transcript, from the first place that has splits."""
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
        metadata = _yaml(path)
        if not isinstance(metadata, dict):
            raise DataError(f"{path} is not a table of videos; take BAH's own file")
        for video, about in metadata.items():
            rows = dict(_frame_labels(about, f"{path}: {video}"))
            numbers = sorted(rows)
            labels = np.array([rows[number] for number in numbers], np.int64)
            found[video_id(str(video))] = (np.array(numbers, np.int64), labels)
        break
    return found


def _frame_labels(about: object, where: str) -> Iterator[tuple[int, int]]:
    """Frame number and label of each row; `where` is the table's name in errors."""
    rows = about.get("frame_annotation") if isinstance(about, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{where} has no list frame_annotation; take BAH's own file")
    for row in rows:
        match row:
            case [str() as frame, 0 | 1 as label] if number := _FRAME.search(frame):
                yield int(number[1]), int(label)
            case _:
                raise DataError(f"{where} has {row!r}, not a frame's picture and 0 or 1; take BAH's own file")


def _transcript(folder: Path | None) -> tuple[str, tuple[TimedWord, ...]]:
    """The transcript in a video's folder, and its words with times; "" and none if there are none."""
    if folder is None:
        return "", ()
    for path in sorted(folder.glob("*.y*ml")) if folder.is_dir() else [folder]:
        metadata = _yaml(path)
        if not isinstance(metadata, dict) or not isinstance(metadata.get("text"), str):
            raise DataError(f"{path} has no text; take BAH's own file")
        return str(metadata["text"]).strip(), _timed(metadata.get("chunks"), path)
    return "", ()


def _timed(chunks: object, path: Path) -> tuple[TimedWord, ...]:
    """The words of a transcript's chunks with their times; none if there are no chunks.

    If a chunk has several words, they are spread evenly over its time. Whisper may leave the end of the last
    chunk open; then its start is used as its end.
    """
    if chunks is None:
        return ()
    words: list[TimedWord] = []
    for row in chunks if isinstance(chunks, list) else [chunks]:
        match row:
            case {
                "text": str() as text,
                "timestamp": [int() | float() as start, (int() | float() | None) as end],
            }:
                start_ns = round(start * 1e9)
                end_ns = start_ns if end is None else round(end * 1e9)
                if start_ns < 0 or end_ns < start_ns:
                    raise DataError(f"{path} has {text!r} from {start} to {end} s; take BAH's own file")
                words += spread_words(text, end_ns, start_ns)
            case _:
                raise DataError(f"{path} has the chunk {row!r}, not text and timestamp; take BAH's own file")
    return tuple(sorted(words, key=lambda word: word.start_ns))


def _named_mp4(folder: Path, places: tuple[str, ...]) -> Iterator[Path]:
    """Files and folders called `….mp4`. These folders have one file for each frame and are not listed."""
    for place in places:
        for parent, folders, files in os.walk(folder / place):
            for name in sorted(name for name in (*folders, *files) if name.lower().endswith(".mp4")):
                yield Path(parent, name)
            folders[:] = sorted(name for name in folders if not name.lower().endswith(".mp4"))


# The loader in C, if PyYAML was built with it: annotations have a row for each of 465,000 frames.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # of either
    """A safe loader that also reads tuples: Python writes pairs of times as such."""


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _Loader.construct_sequence)


def _yaml(path: Path) -> Any:  # whatever a YAML file may hold
    try:
        return yaml.load(_text(path), Loader=_Loader)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        raise DataError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}; take BAH's own file"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; take BAH's own file") from error
