"""Hume-Vidmimic2 as its participants have it: rated splits, and one feature file a clip and modality.

::

    FOLDER/
    ├── train_split.csv, valid_split.csv    Filename,Admiration,...,Joy; perhaps test_split.csv, of zeros
    ├── vit/00001.pkl, wav2vec2/00001.pkl   (T, D) features; the test split's may lie in test_data/ or test/
    ├── gte/00001.pkl                       (D,) embedding of the whole transcript
    ├── text/00001.txt                      the transcript; absent or empty for about 6 % of the clips
    └── dataset.json                        where features or data are not the usual ones: `FolderStory`

Sources: the public loaders of challenge participants. No document describes the layout, so all is checked.

Time is made, not read: the videos' frame rates are absurd. Picture k is at k / 6 s; frame k of the voice is
known when its 25 ms end, each 20 ms after the one before. The vector of a whole transcript is known only once
all is said, at the clip's end, so that a prefix does not leak words; but at 12 s in a longer clip, of which
the papers' systems are shown 12 s of sound beside all of its words.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.data.clip import WINDOW_S, Clip, Track
from emi_models.data.conversion import Converted, convert
from emi_models.data.errors import DataError
from emi_models.data.faces import VIDMIMIC_FACES_HZ
from emi_models.data.rates import WAV2VEC2, FrameRate
from emi_models.data.ratings import SPLITS, Rating, read_split, split_file, stack_targets
from emi_models.data.vidmimic_folder import files_by_clip, find_source, read_story
from emi_models.inputs import FusionShapes
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_models.data.conversion import Progress
    from emi_models.vocabulary import Modality

__all__ = ["CACHE", "LICENCE", "VidmimicClips"]

CACHE: Final = "emi-cache"
LICENCE: Final = "research only, under the licence agreement of Hume-Vidmimic2"
WINDOW_NS: Final = round(WINDOW_S * 1e9)
VISION_FRAMES: Final = 400  # the papers' most
AUDIO_FRAMES: Final = WAV2VEC2.count(WINDOW_NS)  # 599
RATED_LONG_S: Final = 2.0  # of voice, from which a clip tells how many faces come in a second

_log = logging.getLogger(__name__)


class VidmimicClips:
    """A `ClipSet` of the official layout. Opening it converts what has not been converted before.

    Rows of `targets` are NaN where a clip is unrated. A modality without features has empty tracks of width 1
    and no encoder.

    Args:
        folder: with `train_split.csv` or `valid_split.csv`.
        vision: its folder of features, or one file of all clips, or `none`; None = `vit`.
        audio: likewise; None = `wav2vec2`.
        text: likewise; None = `gte`, or `text_embeddings`.
        cache: where converted features are kept; None = `emi-cache` in `folder`.
        progress: told how far a conversion is.

    Raises:
        DataError: a file is missing or is not as its publisher gives it. A bad feature file is none of these:
            it counts as missing, and `features[modality].refused` says why.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vision: str | None = None,
        audio: str | None = None,
        text: str | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.folder = folder
        self._ratings = _read_splits(folder)
        self._story = read_story(folder)
        chosen = {"vision": vision, "audio": audio, "text": text}
        self.features: dict[Modality, Converted] = {}
        self.sources: dict[Modality, str] = {}  # the folder or file that each modality's features are in
        for modality in MODALITIES:
            choice = chosen[modality] or self._story.features.get(modality)
            found = self._open(modality, choice, cache or folder / CACHE, progress or _silent)
            if found is not None:
                self.features[modality] = found
        if not any(map(len, self.features.values())):
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
        if self._story.vision_hz is not None:
            vision = min(vision, math.ceil(WINDOW_S * self._story.vision_hz))
        if self._story.audio_hz is not None:
            audio = min(audio, math.ceil(WINDOW_S * self._story.audio_hz))
        return FusionShapes(vision, dims["vision"], audio, dims["audio"], dims["text"])

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """What the features are called, by modality: the folder's name and their width, if nothing better."""
        named = self._story.encoders
        return {
            modality: named.get(modality, f"hume-vidmimic2/{self.sources[modality]}-{features.dim}")
            for modality, features in self.features.items()
        }

    @property
    def description(self) -> str:
        """What data these are and how many clips, in one line."""
        counts = [f"{len(self.ids(split))} {split}" for split in SPLITS if self.ids(split)]
        return self._story.description or f"Hume-Vidmimic2: {', '.join(counts)} clips"

    @property
    def licence(self) -> str:
        """The terms that a checkpoint trained on these clips inherits."""
        return self._story.licence or LICENCE

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train`, `valid` or `test`, in their file's order."""
        return tuple(clip_id for clip_id, rating in self._ratings.items() if rating.split == split)

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, 6) of `ids(split)`, NaN where a clip is unrated."""
        return stack_targets([self._ratings[clip_id].targets for clip_id in self.ids(split)])

    def durations_s(self, split: str) -> tuple[float, ...]:
        """Seconds that each of `ids(split)` lasts, by its number of frames."""
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
            vision=self._track("vision", clip_id),
            audio=self._track("audio", clip_id),
            text=self._text(clip_id, min(duration_ns, WINDOW_NS)),
            duration_ns=duration_ns,
            targets=self._ratings[clip_id].targets,
        )

    @property
    def assumed_faces_hz(self) -> float:
        """How many faces are taken to come in a second."""
        return self._story.vision_hz or VIDMIMIC_FACES_HZ

    def faces_hz(self) -> float | None:
        """Faces in a second of voice, the median over clips, to compare with what is assumed, if known."""
        if not {"vision", "audio"} <= set(self.features):
            return None
        rates = []
        for clip_id in self._ratings:
            faces = self.features["vision"].total(clip_id)
            voice_s = self._length_ns("audio", clip_id) / 1e9
            if faces and voice_s >= RATED_LONG_S:
                rates.append(faces / voice_s)
        return float(np.median(rates)) if rates else None

    def _open(
        self, modality: Modality, choice: str | None, cache: Path, progress: Progress
    ) -> Converted | None:
        source = find_source(self.folder, modality, choice, cache)
        if source is None:
            _log.info("%s: no %s features are used", self.folder, modality)
            return None
        self.sources[modality] = source.name
        ids = tuple(self._ratings)
        found = convert(source.files, cache / source.name, ids, progress, single=modality == "text")
        for reason in [*found.refused.values()][:1]:
            _log.warning(
                "%d files of %s are passed over, `emi convert` lists them; the first: %s",
                len(found.refused),
                source.name,
                reason,
            )
        return found

    def _rate(self, modality: Modality) -> FrameRate:
        if modality == "vision":
            return FrameRate.of(self.assumed_faces_hz)
        return WAV2VEC2 if self._story.audio_hz is None else FrameRate.of(self._story.audio_hz)

    def _length_ns(self, modality: Modality, clip_id: str) -> int:
        total = self.features[modality].total(clip_id) if modality in self.features else 0
        return self._rate(modality).length_ns(total)

    def _duration_ns(self, clip_id: str) -> int:
        return max(self._length_ns("vision", clip_id), self._length_ns("audio", clip_id))

    def _track(self, modality: Modality, clip_id: str) -> Track:
        if modality not in self.features:
            return Track.empty(1)
        rate = self._rate(modality)
        frames = self.features[modality].read(clip_id, rate.count(WINDOW_NS))
        return Track(rate.stamps(frames.index), frames.values)

    def _text(self, clip_id: str, known_ns: int) -> Track:
        if "text" not in self.features:
            return Track.empty(1)
        features = self.features["text"]
        # Whoever has transcripts says by an empty one that nothing was said, whatever its embedding is.
        if features.total(clip_id) == 0 or (self._transcripts and not self.transcript(clip_id)):
            return Track.empty(features.dim)
        values = features.read(clip_id, 1).values
        # Nor is a vector of zeros, or one that is not finite, any words.
        return (
            Track(np.full(len(values), known_ns, np.int64), values)
            if values.any()
            else Track.empty(features.dim)
        )


def _read_splits(folder: Path) -> dict[str, Rating]:
    """All clips with their ratings, split by split."""
    found: dict[str, Rating] = {}
    for split in SPLITS:
        path = split_file(folder, split)
        if not path.is_file():
            continue
        ratings = read_split(path)
        # Participants make the test split's file themselves, and fill it with zeros.
        made_up = split == "test" and not any(
            r.targets is not None and r.targets.any() for r in ratings.values()
        )
        for clip_id, rating in ratings.items():
            if clip_id in found:
                raise DataError(
                    f"{path} has clip {clip_id}, which is in {found[clip_id].split} too; keep one"
                )
            found[clip_id] = Rating(None if made_up else rating.targets, split)
    if not found:
        raise DataError(
            f"{folder} has no clip in train_split.csv, valid_split.csv or test_split.csv; put them there"
        )
    return found


def _silent(name: str, done: int, total: int) -> None:
    """No progress is shown."""
