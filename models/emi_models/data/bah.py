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
folder has underscores, so both use the video's name with underscores.

Sources: the public release's repository (sbelharbi/bah-dataset, BSD-3) and notebooks on the challenge's.
The data themselves were not available: this was tried on files made up after those descriptions.

`BahChunks` cuts what a network is shown of a video at one moment: the seconds around it, per modality.
Source: "Semantic Matters" §3.2 and §4.2. A chunk is centred on its frame and so looks ahead, which live use
cannot: these windows are for training and scoring on BAH alone.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from emi_models.data.clip import WINDOW_S, Clip, FeatureTrack
from emi_models.data.vidmimic import BAH_FACES_HZ
from emi_models.errors import DataError
from emi_models.targets import AMBIVALENCE, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionShapes
    from emi_models.networks.config import Task

    Embed = Callable[[Sequence[str]], NDArray[np.float32]]  # n texts to (n, D)

__all__ = [
    "MARK",
    "BahChunks",
    "BahVideo",
    "ChunkSpans",
    "SpokenWord",
    "chunk",
    "marked_text",
    "present_word",
    "read_bah",
    "spread_words",
]

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
    """Frame number and label of each row; `where` names the table in errors."""
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
        metadata = _yaml(path)
        if isinstance(metadata, dict) and isinstance(metadata.get("text"), str):
            return str(metadata["text"]).strip()
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
        raise DataError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}; take BAH's own file"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; take BAH's own file") from error


MARK: Final = "[ATTENTION]"
WINDOW_NS: Final = round(WINDOW_S * 1e9)
VIDEOS_IN_MEMORY: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSpans:
    """Seconds of a chunk, half of them before its frame and half after; the defaults are the paper's best."""

    vision_s: float = 20.0
    audio_s: float = 12.0
    text_s: float = 20.0


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word and its time, in ns from the video's start."""

    text: str
    start_ns: int
    end_ns: int


def spread_words(transcript: str, duration_ns: int) -> tuple[SpokenWord, ...]:
    """The words of a transcript that has no times, spread evenly over the video: an assumption."""
    words = transcript.split()
    edges = [duration_ns * place // max(1, len(words)) for place in range(len(words) + 1)]
    return tuple(SpokenWord(word, edges[place], edges[place + 1]) for place, word in enumerate(words))


def present_word(words: Sequence[SpokenWord], at_ns: int) -> int:
    """Which word is being said: the last that has begun, the first before that; -1 if there is none."""
    begun = sum(word.start_ns <= at_ns for word in words)
    return max(begun, 1) - 1 if words else -1


def marked_text(words: Sequence[SpokenWord], present: int, span_s: float = 20.0) -> str:
    """The words within half of `span_s` around the present one, `[ATTENTION]` before that one.

    The marker is plain text. In the paper the text encoder is trained and learns what it means; a frozen
    encoder reads it as it would read any word, so an embedding of this text says less of where the marker is.
    """
    centre_ns = words[present].start_ns
    reach_ns = span_s * 0.5e9
    parts = []
    for place, word in enumerate(words):
        if place == present:
            parts.append(MARK)
        if abs((word.start_ns + word.end_ns) / 2 - centre_ns) <= reach_ns or place == present:
            parts.append(word.text)
    return " ".join(parts)


def chunk(
    video: Clip,
    at_ns: int,
    shapes: FusionShapes,
    text: NDArray[np.float32] | None,
    spans: ChunkSpans | None = None,
) -> Clip:
    """The chunk around `at_ns` as a clip of 12 s, of which `window(shapes, 12 s)` shows every frame.

    Frames keep their order but not their times: they are spread over the 12 s. Of more vision frames than
    `shapes` has, equidistant ones are taken; of more voice frames, the first ones (12 s at 50 Hz have one or
    two too many).

    Args:
        video: the whole video's features.
        at_ns: the frame's time.
        shapes: the network's sizes.
        text: embedding (D,) of the marked words, None if there are no words.
        spans: seconds of each modality.
    """
    spans = spans or ChunkSpans()
    vision = _around(video.vision, at_ns, spans.vision_s)
    if len(vision) > shapes.vision_frames:
        vision = vision[np.linspace(0, len(vision) - 1, shapes.vision_frames).round().astype(np.int64)]
    audio = _around(video.audio, at_ns, spans.audio_s)[: shapes.audio_frames]
    words = FeatureTrack.empty(shapes.text_dim)
    if text is not None:
        words = FeatureTrack(np.array([WINDOW_NS], np.int64), np.asarray(text, np.float32)[None])
    return Clip(video.id, _spread(vision), _spread(audio), words, WINDOW_NS)


class BahChunks:
    """A `ClipSet` of BAH in which each labelled frame is a clip `<video>#<frame>`, with one target, 0 or 1.

    So it trains and is scored as any other set is, with whole windows (`prefixes` 0).

    Args:
        videos: as `read_bah` gives them; those without labelled frames are left out.
        features: the same videos' features by the same ids, whole (`ManifestClips(…, first_s=None)`).
        embed: the frozen text encoder, n texts to (n, D); asked once for each video, for all of its words.
        spans: seconds of a chunk.
        every: take each n-th labelled frame.
        hz: frames a second of what is labelled.
        text_encoder: the id of what `embed` runs; None = the set's own.

    Raises:
        DataError: no frame is labelled, or a setting is out of range.
    """

    def __init__(
        self,
        videos: Sequence[BahVideo],
        features: ClipSet,
        embed: Embed,
        *,
        spans: ChunkSpans | None = None,
        every: int = 1,
        hz: float = BAH_FACES_HZ,
        text_encoder: str | None = None,
    ) -> None:
        if every < 1 or hz <= 0:
            raise DataError(f"every {every}, {hz} Hz: give whole frames from 1 on and a rate above 0")
        self._videos = {video.id: video for video in videos if len(video.frames)}
        if not self._videos:
            raise DataError(
                f"none of {len(videos)} videos has labelled frames; BAH's annotation file has them"
            )
        self._features = features
        self._embed = embed
        self._spans = spans or ChunkSpans()
        self._every = every
        self._hz = hz
        self._text_encoder = text_encoder
        self._open: OrderedDict[str, Clip] = OrderedDict()
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._words: dict[str, tuple[SpokenWord, ...]] = {}

    @property
    def task(self) -> Task:
        """Whether ambivalence or hesitancy shows."""
        return "bah"

    @property
    def rated(self) -> tuple[Target, ...]:
        """One answer."""
        return (Target(AMBIVALENCE),)

    @property
    def shapes(self) -> FusionShapes:
        """The features' own sizes."""
        return self._features.shapes

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The features' own, but for the text's."""
        named = dict(self._features.encoders)
        return named if self._text_encoder is None else named | {"text": self._text_encoder}

    @property
    def description(self) -> str:
        """What data these are, in one line."""
        frames = sum(len(self._frames(video)) for video in self._videos.values())
        return f"BAH: {frames} labelled frames of {len(self._videos)} videos"

    @property
    def licence(self) -> str:
        """The terms that a checkpoint trained on these chunks inherits."""
        return "research only, under BAH's licence agreement"

    def ids(self, split: str) -> tuple[str, ...]:
        """The labelled frames of `train`, `valid` or `test`, video by video."""
        return tuple(
            f"{video.id}#{frame}"
            for video in self._videos.values()
            if video.split == split
            for frame in self._frames(video)
        )

    def targets(self, split: str) -> NDArray[np.float32]:
        """Labels (N, 1) of `ids(split)`: 1 where ambivalence or hesitancy shows."""
        labels = [v.labels[:: self._every] for v in self._videos.values() if v.split == split]
        return np.concatenate([*labels, np.zeros(0)]).astype(np.float32)[:, None]

    def durations_s(self, split: str) -> tuple[float, ...]:
        """Every chunk lasts 12 s."""
        return (WINDOW_S,) * len(self.ids(split))

    def load(self, clip_id: str) -> Clip:
        """The chunk of one labelled frame.

        Raises:
            DataError: there is no such frame, or its video's features are missing or damaged.
        """
        name, _, frame = clip_id.rpartition("#")
        if name not in self._videos or not frame.isdecimal() or int(frame) not in self._videos[name].frames:
            raise DataError(f"no labelled frame {clip_id!r}; give <video>#<frame> of BAH's annotations")
        video = self._video(name)
        at_ns = round(int(frame) * 1e9 / self._hz)
        place = present_word(self._words[name], at_ns)
        return chunk(video, at_ns, self.shapes, self._texts[name][place] if place >= 0 else None, self._spans)

    def _frames(self, video: BahVideo) -> NDArray[np.int64]:
        return video.frames[:: self._every]

    def _video(self, name: str) -> Clip:
        """A video's features, the last few kept, with its words' embeddings, all of which are kept."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        clip = self._features.load(name)
        if name not in self._texts:
            words = spread_words(self._videos[name].transcript, clip.duration_ns)
            texts = [marked_text(words, place, self._spans.text_s) for place in range(len(words))]
            vectors = self._embed(texts) if texts else np.zeros((0, self.shapes.text_dim), np.float32)
            if vectors.shape != (len(texts), self.shapes.text_dim):
                raise DataError(
                    f"{len(texts)} texts have embeddings {vectors.shape}, the features' words "
                    f"{self.shapes.text_dim} values; give the text encoder that the features are of"
                )
            self._words[name], self._texts[name] = words, vectors
        self._open[name] = clip
        if len(self._open) > VIDEOS_IN_MEMORY:
            self._open.popitem(last=False)
        return clip


def _around(track: FeatureTrack, at_ns: int, span_s: float) -> NDArray[np.float32]:
    """The frames within half of a span before and after, (n, D)."""
    reach_ns = round(span_s * 0.5e9)
    start, stop = np.searchsorted(track.t_ns, [at_ns - reach_ns, at_ns + reach_ns + 1])
    return track.values[start:stop]


def _spread(values: NDArray[np.float32]) -> FeatureTrack:
    """Frames at even steps up to the window's end, all of them within it."""
    steps = np.arange(1, len(values) + 1, dtype=np.int64)
    return FeatureTrack(steps * (WINDOW_NS // max(1, len(values))), values)
