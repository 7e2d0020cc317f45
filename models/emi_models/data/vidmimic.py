"""Hume-Vidmimic2 as its participants have it: rated splits, and one feature file for each clip and modality.

::

    FOLDER/
    ├── train_split.csv, valid_split.csv    Filename,Admiration,...,Joy; perhaps test_split.csv, of zeros,
    │                                       here or in test_data/; without it, the clips there are listed
    ├── vit/00001.pkl, wav2vec2/00001.pkl   (T, D) features; the test split's may lie in test_data/ or test/
    ├── gte/00001.pkl                       (D,) embedding of the whole transcript
    ├── text/00001.txt                      the transcript; absent or empty for about 6 % of the clips
    └── dataset.json                        only if features or data differ from these: `FolderMetadata`

Sources: the public loaders of challenge participants. No document describes the layout, so all is checked.

Times are computed, because the videos' frame rates are absurd. Vision frame k is at k / 6 s. Audio frame k is
known when its 25 ms end; frames are 20 ms apart. The vector of a whole transcript is known only at the clip's
end, so that a prefix does not leak words. In a clip longer than 12 s it is known at 12 s, because the papers'
systems get 12 s of audio with all words.

`find_source` finds the files with each clip's features or words. `face_pictures` lists the face pictures of a
data set: one folder for each clip, one numbered picture for each frame.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models import MODALITIES
from emi_models.data.clip import (
    SPLITS,
    WINDOW_S,
    Clip,
    FeatureTrack,
    Rating,
    normal_id,
    read_split,
    split_file,
    stack_targets,
)
from emi_models.data.feature_files import OPENFACE, SUFFIXES, WAV2VEC2, Converted, FrameRate, convert
from emi_models.errors import DataError
from emi_models.inputs import FusionShapes
from emi_models.targets import EMI_TARGETS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.feature_files import Progress
    from emi_models.targets import Target

__all__ = [
    "BAH_FACES_HZ",
    "CACHE",
    "LICENCE",
    "VIDMIMIC_FACES_HZ",
    "FeatureSource",
    "FolderMetadata",
    "VidmimicClips",
    "face_pictures",
    "files_by_clip",
    "find_source",
    "has_features",
    "read_folder_metadata",
]

DESCRIPTION: Final = "dataset.json"
NONE: Final = "none"  # in place of a folder's name: leave that modality out
# Two teams keep the test split's features in separate folders.
BELOW: Final = ("", "test_data", "test")
_USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "vision": ("vit",),
    "audio": ("wav2vec2",),
    "text": ("gte", "text_embeddings"),
}
CLIPS: Final = (*SUFFIXES, ".mp3", ".wav", ".mp4", ".txt")  # files that belong to one clip
MOTION: Final = "motion"  # in addition to the modalities: action units and head pose, with their own times


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderMetadata:
    """The content of `dataset.json`, for features or data that differ from the usual ones; all is optional.

    `features` names the folder of each modality, and of `motion`; frame k is at k / `vision_hz` s,
    k / `audio_hz` s or k / `motion_hz` s.
    `whole_faces`: use the first 400 faces of a clip, as in the papers, and not those of its first 12 s. They
    are spread over the window; for training on whole clips, not on prefixes.
    """

    features: Mapping[str, str] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)
    vision_hz: float | None = None
    audio_hz: float | None = None
    motion_hz: float | None = None
    whole_faces: bool = False
    description: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Where one modality's features are: the file of each clip, or one for all; and the name of the cache."""

    name: str
    files: Path | Mapping[str, Path]


def read_folder_metadata(folder: Path) -> FolderMetadata:
    """Read `dataset.json`; keys that `FolderMetadata` does not have are ignored.

    Raises:
        DataError: the file exists and is invalid.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return FolderMetadata()
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        known = {name: metadata[name] for name in FolderMetadata.__slots__ if name in metadata}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be understood: {error}; correct or remove it") from error
    for name, value in known.items():
        if name in ("features", "encoders"):
            good = isinstance(value, dict) and set(value) <= {*MODALITIES, MOTION}
            good = good and all(isinstance(text, str) for text in value.values())
        elif name == "whole_faces":
            good = isinstance(value, bool)
        elif name.endswith("_hz"):
            good = isinstance(value, int | float) and 0 < value <= 1000
        else:
            good = isinstance(value, str)
        if not good:
            raise DataError(f"{path} has {value!r} for {name}; correct or remove it")
    return FolderMetadata(**known)


def has_features(folder: Path, name: str, cache: Path | None = None) -> bool:
    """Whether a folder in Hume-Vidmimic2's layout has features of this name, or a cache of them."""
    key = _cache_name(folder, name)
    return (
        any((folder / below / name).exists() for below in BELOW) or ((cache or folder / CACHE) / key).is_dir()
    )


def find_source(folder: Path, modality: str, choice: str | None, cache: Path) -> FeatureSource | None:
    """Where the features of a modality are, None if there are none.

    Args:
        folder: of the data set.
        modality: which one; or `motion`, which may be OpenFace's CSVs.
        choice: a folder of files `<id>.pkl`, or one file of all clips, below `folder` or anywhere; `none`; or
            None for the usual names.
        cache: where conversions are stored; they can be used without their source.

    Raises:
        DataError: the choice does not exist, or two files belong to one clip.
    """
    if choice == NONE:
        return None
    suffixes = (*SUFFIXES, OPENFACE) if modality == MOTION else SUFFIXES
    for name in _USUAL.get(modality, ()) if choice is None else (choice,):
        if (folder / name).is_file():
            return FeatureSource(_cache_name(folder, name), folder / name)
        folders = [place for below in BELOW if (place := folder / below / name).is_dir()]
        key = _cache_name(folder, name)
        if folders or (cache / key).is_dir():
            files: dict[str, Path] = {}
            for place in folders:
                files |= files_by_clip(place, suffixes)
            return FeatureSource(key, files)
    if choice is None:
        return None
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and path != cache)
    raise DataError(
        f"{folder} has no {modality} features {choice!r}; name a folder or file of features "
        f"(there are folders {', '.join(there) or 'of no name'}), or {NONE}"
    )


def files_by_clip(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """The files of a folder that have one of the suffixes, by the clip id of their names.

    Other files, such as `Thumbs.db`, are ignored.

    Raises:
        DataError: two files belong to one clip.
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
    """A unique name for a folder or file of features, which does not change if the data set is moved."""
    path = (folder / name).resolve()
    if path.is_relative_to(folder.resolve()):
        return "__".join(path.relative_to(folder.resolve()).parts)
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


VIDMIMIC_FACES_HZ: Final = (
    6.0  # about; the videos' own frame rates (25 to 1000 by their metadata) say nothing
)
BAH_FACES_HZ: Final = 24.0
_NAME: Final = re.compile(r"(?:frame-)?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def face_pictures(folder: Path, hz: float = VIDMIMIC_FACES_HZ) -> Iterator[tuple[int, Path]]:
    """The pictures of one clip with their times, ns from its start, in order of their numbers.

    Picture n is at n / hz; a missing number is a time without a face. Names are `12.jpg` or `frame-12.jpg`;
    other files in the folder are ignored. No file is opened.

    Raises:
        DataError: there is no such folder, or two pictures have the same number.
    """
    try:
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}; give a clip's folder of faces"
        ) from error
    found.sort()
    for (number, path), (following, other) in pairwise(found):
        if number == following:
            raise DataError(f"{folder} has {path.name} and {other.name} for one moment; keep one of them")
    return ((round(number * 1e9 / hz), path) for number, path in found)


CACHE: Final = "emi-cache"
FLAGS: Final = ("face", "motion")  # at the end of a vision frame if the set has both: which of them it holds
LICENCE: Final = "research only, under the licence agreement of Hume-Vidmimic2"
WINDOW_NS: Final = round(WINDOW_S * 1e9)
VISION_FRAMES: Final = 400  # the papers' most
AUDIO_FRAMES: Final = WAV2VEC2.count(WINDOW_NS)  # 599
RATED_LONG_S: Final = 2.0  # least audio of a clip from which the rate of its faces is computed

_log = logging.getLogger(__name__)


class VidmimicClips:
    """A `ClipSet` of the official layout. Opening it converts features that are not in the cache.

    The row of an unrated clip in `targets` is NaN. A modality without features has empty tracks of width 1
    and no encoder.

    Args:
        folder: with `train_split.csv` or `valid_split.csv`.
        vision: its folder of features, or one file of all clips, or `none`; None = `vit`.
        audio: as `vision`; None = `wav2vec2`.
        text: as `vision`; None = `gte`, or `text_embeddings`.
        motion: action units and head pose in addition to faces, with their own rate; None = none. OpenFace's
            CSVs are read too. A vision frame then holds a face, or motion; see `motion_dim`.
        cache: where converted features are stored; None = `emi-cache` in `folder`.
        progress: called with how far a conversion is.
        targets: which of the six emotions the clips are rated for.

    Raises:
        DataError: a file is missing or has another format than its publisher's. A bad feature file raises no
            error: it counts as missing, and `features[modality].refused` says why.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vision: str | None = None,
        audio: str | None = None,
        text: str | None = None,
        motion: str | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
        targets: tuple[Target, ...] = EMI_TARGETS,
    ) -> None:
        self.folder = folder
        self.rated = targets
        self._ratings = _read_splits(folder, targets)
        self._metadata = read_folder_metadata(folder)
        chosen = {"vision": vision, "audio": audio, "text": text}
        self.features: dict[Modality, Converted] = {}
        self.sources: dict[str, str] = {}  # the folder or file that each modality's features are in
        for modality in MODALITIES:
            choice = chosen[modality] or self._metadata.features.get(modality)
            found = self._open(modality, choice, cache or folder / CACHE, progress or _silent)
            if found is not None:
                self.features[modality] = found
        choice = motion or self._metadata.features.get(MOTION)
        self.motion = self._open(MOTION, choice, cache or folder / CACHE, progress or _silent)
        self.motion_hz = self._rate_of_motion()
        self._motion_rate = FrameRate.of(self.motion_hz)
        if not any(map(len, self.features.values())) and not self.motion:
            raise DataError(
                f"{folder} has no features of its clips; put them into vit/, wav2vec2/ and gte/ as <id>.pkl, "
                "or name other folders"
            )
        self._transcripts: dict[str, Path] = {}
        for place in (folder / "text", folder / "test_data" / "text", folder / "test" / "text"):
            if place.is_dir():
                self._transcripts |= files_by_clip(place, (".txt",))

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window of these clips."""
        dims = {m: self.features[m].dim if m in self.features else 1 for m in MODALITIES}
        vision, audio = VISION_FRAMES, AUDIO_FRAMES
        if self._metadata.vision_hz is not None and not self._metadata.whole_faces:
            vision = min(vision, math.ceil(WINDOW_S * self._metadata.vision_hz))
        if self.motion is not None:
            moves = min(VISION_FRAMES, math.ceil(WINDOW_S * self.motion_hz))
            paired = "vision" in self.features
            vision = vision + moves if paired else moves
            dims["vision"] = self.motion.dim + (dims["vision"] + len(FLAGS) if paired else 0)
        if self._metadata.audio_hz is not None:
            audio = min(audio, math.ceil(WINDOW_S * self._metadata.audio_hz))
        return FusionShapes(vision, dims["vision"], audio, dims["audio"], dims["text"])

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The encoder of the features, by modality; if unknown, the folder's name and the width."""
        named = self._metadata.encoders
        found: dict[Modality, str] = {
            modality: named.get(modality, f"hume-vidmimic2/{self.sources[modality]}-{features.dim}")
            for modality, features in self.features.items()
        }
        if self._metadata.whole_faces and "vision" in found:
            found["vision"] += f", {VISION_FRAMES} of the clip"
        if self.motion is not None:
            motion = named.get(MOTION, f"hume-vidmimic2/{self.sources[MOTION]}-{self.motion.dim}")
            found["vision"] = f"{found['vision']}+{motion}" if "vision" in found else motion
        return found

    @property
    def motion_dim(self) -> int:
        """Values of motion in a vision frame; 0: there is no motion.

        If the set has faces and motion, a frame has the face's values, the motion's values, and two flags:
        whether it holds a face, and whether it holds motion. The values of the other one are zeros. Each
        stream keeps its own times. If the set has only motion, a frame has only motion's values.
        """
        return 0 if self.motion is None else self.motion.dim

    def _rate_of_motion(self) -> float:
        """Frames of motion per second: from `dataset.json`, else from the audio's length, else the faces'."""
        if self._metadata.motion_hz is not None or self.motion is None:
            return self._metadata.motion_hz or VIDMIMIC_FACES_HZ
        return self._per_second(self.motion) or self.assumed_faces_hz

    def frames(self, modality: Modality, clip_id: str) -> int:
        """How many frames of a modality the whole clip has."""
        return self.features[modality].total(clip_id) if modality in self.features else 0

    @property
    def description(self) -> str:
        """A description of the data with the number of clips, in one line."""
        counts = [f"{len(self.ids(split))} {split}" for split in SPLITS if self.ids(split)]
        return self._metadata.description or f"Hume-Vidmimic2: {', '.join(counts)} clips"

    @property
    def licence(self) -> str:
        """The licence terms that apply to a checkpoint trained on these clips."""
        return self._metadata.licence or LICENCE

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train`, `valid` or `test`, in their file's order."""
        return tuple(clip_id for clip_id, rating in self._ratings.items() if rating.split == split)

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, K) of `ids(split)`, NaN if unrated."""
        rows = [self._ratings[clip_id].targets for clip_id in self.ids(split)]
        return stack_targets(rows, len(self.rated))

    def durations_s(self, split: str) -> tuple[float, ...]:
        """Seconds that each of `ids(split)` lasts, from its number of frames."""
        return tuple(self._duration_ns(clip_id) / 1e9 for clip_id in self.ids(split))

    def transcript(self, clip_id: str) -> str:
        """A clip's words, "" if there are none."""
        path = self._transcripts.get(clip_id)
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip() if path else ""
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; check the file") from error

    def load(self, clip_id: str) -> Clip:
        """One clip, with the features of its first 12 s.

        Raises:
            DataError: there is no such clip, or the cache is damaged.
        """
        if clip_id not in self._ratings:
            raise DataError(f"{self.folder} has no clip {clip_id!r}; its splits list {len(self._ratings)}")
        duration_ns = self._duration_ns(clip_id)
        return Clip(
            id=clip_id,
            vision=self._seen(clip_id),
            audio=self._track("audio", clip_id),
            text=self._text(clip_id, min(duration_ns, WINDOW_NS)),
            duration_ns=duration_ns,
            targets=self._ratings[clip_id].targets,
        )

    @property
    def assumed_faces_hz(self) -> float:
        """Faces per second that are assumed."""
        return self._metadata.vision_hz or VIDMIMIC_FACES_HZ

    def faces_hz(self) -> float | None:
        """Faces per second of audio, the median over clips, to compare with `vision_hz`; None if unknown."""
        return self._per_second(self.features["vision"]) if "vision" in self.features else None

    def _per_second(self, pictures: Converted) -> float | None:
        """Frames per second of audio, the median over clips; None without audio."""
        if "audio" not in self.features:
            return None
        rates = []
        for clip_id in self._ratings:
            faces = pictures.total(clip_id)
            voice_s = self._length_ns("audio", clip_id) / 1e9
            if faces and voice_s >= RATED_LONG_S:
                rates.append(faces / voice_s)
        return float(np.median(rates)) if rates else None

    def _open(self, modality: str, choice: str | None, cache: Path, progress: Progress) -> Converted | None:
        source = find_source(self.folder, modality, choice, cache)
        if source is None:
            _log.info("%s: no %s features are used", self.folder, modality)
            return None
        self.sources[modality] = source.name
        ids = tuple(self._ratings)
        found = convert(source.files, cache / source.name, ids, progress, single=modality == "text")
        for reason in [*found.refused.values()][:1]:
            _log.warning(
                "%d files of %s are skipped, `emi convert` lists them; the first: %s",
                len(found.refused),
                source.name,
                reason,
            )
        return found

    def _rate(self, modality: Modality) -> FrameRate:
        if modality == "vision":
            return FrameRate.of(self.assumed_faces_hz)
        return WAV2VEC2 if self._metadata.audio_hz is None else FrameRate.of(self._metadata.audio_hz)

    def _length_ns(self, modality: Modality, clip_id: str) -> int:
        total = self.features[modality].total(clip_id) if modality in self.features else 0
        return self._rate(modality).length_ns(total)

    def _duration_ns(self, clip_id: str) -> int:
        moves = 0 if self.motion is None else self._motion_rate.length_ns(self.motion.total(clip_id))
        return max(self._length_ns("vision", clip_id), self._length_ns("audio", clip_id), moves)

    def _track(self, modality: Modality, clip_id: str) -> FeatureTrack:
        if modality not in self.features:
            return FeatureTrack.empty(1)
        rate = self._rate(modality)
        if modality == "vision" and self._metadata.whole_faces:
            frames = self.features[modality].read(clip_id, VISION_FRAMES)
            shown = min(VISION_FRAMES, max(1, frames.total))
            step = min(self._duration_ns(clip_id), WINDOW_NS) / shown
            return FeatureTrack(np.round((frames.index + 1) * step).astype(np.int64), frames.values)
        frames = self.features[modality].read(clip_id, rate.count(WINDOW_NS))
        return FeatureTrack(rate.stamps(frames.index), frames.values)

    def _seen(self, clip_id: str) -> FeatureTrack:
        """Faces, and motion if there is any: see `motion_dim`."""
        faces = self._track("vision", clip_id)
        if self.motion is None:
            return faces
        found = self.motion.read(clip_id, self._motion_rate.count(WINDOW_NS))
        moves = FeatureTrack(self._motion_rate.stamps(found.index), found.values)
        if "vision" not in self.features:
            return moves
        wide = faces.values.shape[1]
        rows = np.zeros((len(faces.t_ns) + len(moves.t_ns), wide + self.motion.dim + len(FLAGS)), np.float32)
        rows[: len(faces.t_ns), :wide] = faces.values
        rows[: len(faces.t_ns), -2] = 1.0
        rows[len(faces.t_ns) :, wide:-2] = moves.values
        rows[len(faces.t_ns) :, -1] = 1.0
        stamps = np.concatenate([faces.t_ns, moves.t_ns])
        order = np.argsort(stamps, kind="stable")
        return FeatureTrack(stamps[order], rows[order])

    def _text(self, clip_id: str, known_ns: int) -> FeatureTrack:
        if "text" not in self.features:
            return FeatureTrack.empty(1)
        features = self.features["text"]
        # If the set has transcripts, an empty one means no words, and its embedding is ignored.
        if features.total(clip_id) == 0 or (self._transcripts and not self.transcript(clip_id)):
            return FeatureTrack.empty(features.dim)
        values = features.read(clip_id, 1).values
        # A vector of zeros, or one that is not finite, also means no words.
        return (
            FeatureTrack(np.full(len(values), known_ns, np.int64), values)
            if values.any()
            else FeatureTrack.empty(features.dim)
        )


def _read_splits(folder: Path, targets: tuple[Target, ...]) -> dict[str, Rating]:
    """All clips with their ratings, split by split."""
    found: dict[str, Rating] = {}
    for split in SPLITS:
        places = [folder, *(folder / below for below in BELOW if below and split == "test")]
        path = next((file for place in places if (file := split_file(place, split)).is_file()), None)
        if path is None:
            continue
        ratings = read_split(path, targets)
        # Participants make the test split's file themselves and fill it with zeros.
        made_up = split == "test" and not any(
            r.targets is not None and np.nan_to_num(r.targets).any() for r in ratings.values()
        )
        for clip_id, rating in ratings.items():
            if clip_id in found:
                raise DataError(
                    f"{path} has clip {clip_id}, which is in {found[clip_id].split} too; keep one"
                )
            found[clip_id] = Rating(None if made_up else rating.targets, split)
    if not any(rating.split == "test" for rating in found.values()):
        found |= {clip_id: Rating(None, "test") for clip_id in _test_ids(folder) if clip_id not in found}
    if not found:
        raise DataError(
            f"{folder} has no clip in train_split.csv, valid_split.csv or test_split.csv; put them there"
        )
    return found


def _test_ids(folder: Path) -> list[str]:
    """The clips in a separate folder of the test split, sorted; for sets without a test CSV."""
    ids: set[str] = set()
    for below in BELOW:
        place = folder / below
        kinds = [path for path in place.iterdir() if path.is_dir()] if below and place.is_dir() else []
        for path in (path for kind in kinds for path in kind.iterdir()):
            if path.is_dir() or path.suffix in CLIPS:  # a clip's pictures, or its features, sound or words
                ids.add(normal_id(path.stem if path.suffix in CLIPS else path.name))
    return sorted(ids)


def _silent(name: str, done: int, total: int) -> None:
    """No progress is shown."""
