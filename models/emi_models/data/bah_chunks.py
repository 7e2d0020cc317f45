"""Chunks of BAH videos: the input of a network for one labelled frame, and these frames as a set of clips.

Source: "Semantic Matters" §3.2 and §4.2. There a chunk is centred on its frame, and so looks ahead. Live use
cannot look ahead: with `window="causal"` the chunk has the same length and ends at the frame. A checkpoint's
notes say which of the two it was trained on, its spans how many seconds of each modality.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emi_models.checkpoint import LONGEST_SPAN_S
from emi_models.data.clip import SPLITS, WINDOW_S, Clip, FeatureTrack
from emi_models.data.vidmimic import BAH_FACES_HZ
from emi_models.errors import DataError
from emi_models.files import replacing
from emi_models.inputs import FusionShapes, equidistant, shown_frames
from emi_models.marked import TimedWord, marked_text, present_word, spread_words
from emi_models.targets import AMBIVALENCE, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.bah import BahVideo
    from emi_models.data.clip import ClipSet
    from emi_models.networks.config import Task

    Embed = Callable[[Sequence[str]], NDArray[np.float32]]  # n marked texts to (n, D)

__all__ = ["BahChunks", "ChunkSpans", "EmbeddedWords", "chunk", "chunk_window"]

Window = Literal["centred", "causal"]
WINDOW_NS: Final = round(WINDOW_S * 1e9)
VIDEOS_IN_MEMORY: Final = 8
LICENCE: Final = "research only, under BAH's licence agreement"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSpans:
    """Seconds of a chunk; the defaults are the paper's best.

    Half of them are before its frame and half after, or with `causal` all of them before.

    Raises:
        DataError: a span is not in (0, 60] s, or there is no such window.
    """

    vision_s: float = 20.0
    audio_s: float = 12.0
    text_s: float = 20.0
    window: Window = "centred"

    def __post_init__(self) -> None:
        spans = (self.vision_s, self.audio_s, self.text_s)
        if not all(0.0 < span <= LONGEST_SPAN_S for span in spans):
            raise DataError(f"spans of {spans} s; each lies above 0 and up to {LONGEST_SPAN_S:g} s")
        if self.window not in get_args(Window):
            raise DataError(f"no window is called {self.window!r}; choose {' or '.join(get_args(Window))}")

    @property
    def causal(self) -> bool:
        """Whether the chunk ends at its frame."""
        return self.window == "causal"

    @property
    def seconds(self) -> dict[str, float]:
        """By modality."""
        return {"vision": self.vision_s, "audio": self.audio_s, "text": self.text_s}

    @classmethod
    def of_header(cls, spans_s: Mapping[str, float], notes: Mapping[str, str]) -> ChunkSpans:
        """The spans that a checkpoint was trained on, from its header."""
        usual = cls()
        named = {f"{name}_s": float(spans_s.get(name, span)) for name, span in usual.seconds.items()}
        window: Window = "causal" if notes.get("window") == "causal" else "centred"
        return cls(**named, window=window)


def chunk(
    video: Clip,
    at_ns: int,
    shapes: FusionShapes,
    text: NDArray[np.float32] | None,
    spans: ChunkSpans | None = None,
) -> Clip:
    """The chunk at `at_ns` as a clip of 12 s; `window(shapes, 12 s)` of it has every frame.

    Frames keep their order but not their times: they are spread over the 12 s. If there are more vision
    frames than `shapes` allows, equidistant ones are taken. If there are more audio frames, a centred chunk
    keeps the first ones (12 s at 50 Hz have one or two too many), a causal one the last ones, as in live use.

    Args:
        video: the whole video's features.
        at_ns: the frame's time.
        shapes: the network's sizes.
        text: embedding (D,) of the marked words, None if there are no words.
        spans: seconds of each modality, centred or causal.
    """
    spans = spans or ChunkSpans()
    if spans.causal:
        vision, audio = chunk_window(video, at_ns, shapes, spans)
    else:
        vision = equidistant(_around(video.vision, at_ns, spans.vision_s), shapes.vision_frames)
        audio = _around(video.audio, at_ns, spans.audio_s)[: shapes.audio_frames]
    words = FeatureTrack.empty(shapes.text_dim)
    if text is not None:
        words = FeatureTrack(np.array([WINDOW_NS], np.int64), np.asarray(text, np.float32)[None])
    return Clip(video.id, _spread(vision), _spread(audio), words, WINDOW_NS)


def chunk_window(
    video: Clip, at_ns: int, shapes: FusionShapes, spans: ChunkSpans
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vision (n, D) and audio (m, D) of a causal chunk, as in live windows (`emi_live.window`)."""
    start_ns = at_ns - round(max(spans.seconds.values()) * 1e9)

    def past(track: FeatureTrack, span_s: float) -> NDArray[np.float32]:
        return track.values[shown_frames(track.t_ns, start_ns, at_ns, round(span_s * 1e9))]

    audio = past(video.audio, spans.audio_s)
    return equidistant(past(video.vision, spans.vision_s), shapes.vision_frames), audio[
        max(0, len(audio) - shapes.audio_frames) :
    ]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedWords:
    """A video's words, and for each the embedding of the text around it: (n, D)."""

    words: tuple[TimedWord, ...]
    vectors: NDArray[np.float32]


class BahChunks:
    """A `ClipSet` of BAH in which each labelled frame is a clip `<video>#<frame>`, with one target, 0 or 1.

    It trains and is scored like any other set, with whole windows (`prefixes` 0). A video's words have the
    release's times; words of a transcript without times are spread evenly over the video.

    Args:
        videos: as `read_bah` gives them.
        features: vision and audio of the same whole videos (`ManifestClips(…, first_s=None)`), under the
            videos' names, or those that `emi extract` gives to files in subfolders; None: only text.
        embed: the frozen text encoder's states at the mark, n texts to (n, D); None: no text. Called once for
            each video, with all its words.
        text_encoder: the id of the encoder behind `embed`; None = that of the features.
        text_dim: D; None = that of the features.
        spans: seconds of a chunk, centred or causal.
        every: take each n-th labelled frame.
        hz: labelled frames per second.
        unlabelled: also take the frames of videos without labels; their targets are NaN.
        cache: folder for embeddings of words; None = they are not stored.

    Raises:
        DataError: no frame is labelled, a setting is out of range, or there is no modality.
    """

    def __init__(
        self,
        videos: Sequence[BahVideo],
        features: ClipSet | None,
        embed: Embed | None,
        *,
        text_encoder: str | None = None,
        text_dim: int | None = None,
        spans: ChunkSpans | None = None,
        every: int = 1,
        hz: float = BAH_FACES_HZ,
        unlabelled: bool = False,
        cache: Path | None = None,
    ) -> None:
        if every < 1 or hz <= 0:
            raise DataError(f"every {every}, {hz} Hz: give a whole number from 1 and a rate above 0")
        if features is None and (embed is None or text_dim is None):
            raise DataError("there are neither features nor a text encoder; give one of them")
        self._videos = {video.id: video for video in videos if unlabelled or len(video.frames)}
        if not self._videos:
            raise DataError(
                f"none of {len(videos)} videos has labelled frames; BAH's annotation file has them"
            )
        self._features, self._embed, self._cache = features, embed, cache
        self._names = {} if features is None else _names(features)
        self._text_encoder, self._text_dim = text_encoder, text_dim
        self.spans = spans or ChunkSpans()
        self._every, self._hz = every, hz
        self._open: OrderedDict[str, Clip] = OrderedDict()
        self._words: dict[str, EmbeddedWords] = {}
        self._frames: dict[str, NDArray[np.int64]] = {}

    @property
    def task(self) -> Task:
        """Whether ambivalence or hesitancy shows."""
        return "bah"

    @property
    def rated(self) -> tuple[Target, ...]:
        """One answer."""
        return (Target(AMBIVALENCE),)

    @property
    def spans_s(self) -> Mapping[str, float]:
        """Seconds of each modality in a chunk, as a checkpoint's header has them."""
        return self.spans.seconds

    @property
    def notes(self) -> Mapping[str, str]:
        """Whether chunks are centred or causal, for a checkpoint's notes."""
        return {"window": self.spans.window}

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of the features; text has the width of the text encoder's states."""
        sizes = FusionShapes(1, 1, 1, 1, self._text_dim or 1)
        if self._features is None:
            return sizes
        own = self._features.shapes
        dim = self._text_dim or own.text_dim
        return FusionShapes(own.vision_frames, own.vision_dim, own.audio_frames, own.audio_dim, dim)

    @property
    def encoders(self) -> Mapping[Modality, str]:
        """The encoders of the features, with another one for text."""
        named: dict[Modality, str] = {} if self._features is None else dict(self._features.encoders)
        if self._embed is None:
            named.pop("text", None)
        elif self._text_encoder is not None:
            named["text"] = self._text_encoder
        return named

    @property
    def description(self) -> str:
        """A description of the data, in one line."""
        labelled = [video for video in self._videos.values() if len(video.frames)]
        frames = sum(len(self.frames(video.id)) for video in labelled)
        return f"BAH: {frames} labelled frames of {len(labelled)} videos"

    @property
    def licence(self) -> str:
        """The licence terms that apply to a checkpoint trained on these chunks."""
        return LICENCE

    @property
    def videos(self) -> tuple[BahVideo, ...]:
        """The videos that have frames in this set."""
        return tuple(self._videos.values())

    def ids(self, split: str) -> tuple[str, ...]:
        """The frames of `train`, `valid` or `test`, video by video."""
        return tuple(
            f"{video.id}#{frame}"
            for video in self._videos.values()
            if video.split == split
            for frame in self.frames(video.id)
        )

    def targets(self, split: str) -> NDArray[np.float32]:
        """Labels (N, 1) of `ids(split)`: 1 where ambivalence or hesitancy shows, NaN if unlabelled."""
        labels = [
            video.labels[:: self._every].astype(np.float32)
            if len(video.frames)
            else np.full(len(self.frames(video.id)), np.nan, np.float32)
            for video in self._videos.values()
            if video.split == split
        ]
        return np.concatenate([*labels, np.zeros(0, np.float32)])[:, None]

    def durations_s(self, split: str) -> tuple[float, ...]:
        """Every chunk lasts 12 s."""
        return (WINDOW_S,) * len(self.ids(split))

    def load(self, clip_id: str) -> Clip:
        """The chunk of one frame.

        Raises:
            DataError: there is no such frame, or its video's features are missing or damaged.
        """
        name, _, frame = clip_id.rpartition("#")
        if name not in self._videos or not frame.isdecimal() or int(frame) not in self.frames(name):
            raise DataError(f"no labelled frame {clip_id!r}; give <video>#<frame> of BAH's annotations")
        video = self._video(name)
        at_ns = round(int(frame) * 1e9 / self._hz)
        return chunk(video, at_ns, self.shapes, self._text(name, at_ns), self.spans)

    def frames(self, name: str) -> NDArray[np.int64]:
        """The numbers of a video's frames in this set: the labelled ones, or all if none is labelled."""
        if name not in self._frames:
            video = self._videos[name]
            numbers = video.frames
            if not len(numbers):
                length = int(self._video(name).duration_ns * self._hz / 1e9)
                numbers = np.arange(max(1, length), dtype=np.int64)
            self._frames[name] = numbers[:: self._every]
        return self._frames[name]

    def embed_words(self, name: str) -> EmbeddedWords:
        """A video's words with their embeddings, from the cache if it has them."""
        if name not in self._words:
            video = self._videos[name]
            words = video.words or spread_words(video.transcript, self._length_ns(name))
            self._words[name] = EmbeddedWords(words, self._vectors(name, words))
        return self._words[name]

    def has_features(self, name: str) -> bool:
        """Whether the features have the video."""
        return self._features is not None and self._feature_id(name) is not None

    def _text(self, name: str, at_ns: int) -> NDArray[np.float32] | None:
        if self._embed is None:
            return None
        spoken = self.embed_words(name)
        place = present_word(spoken.words, at_ns, causal=self.spans.causal)
        if place < 0:
            return None
        said_ns = at_ns - spoken.words[place].end_ns
        if self.spans.causal and said_ns >= self.spans.text_s * 1e9:
            return None  # the last word before the frame is older than the window
        vector: NDArray[np.float32] = spoken.vectors[place]
        return vector

    def _vectors(self, name: str, words: tuple[TimedWord, ...]) -> NDArray[np.float32]:
        spans, dim = self.spans, self.shapes.text_dim
        if not words or self._embed is None:
            return np.zeros((0, dim), np.float32)
        texts = [marked_text(words, place, spans.text_s, causal=spans.causal) for place in range(len(words))]
        path = self._cache_path(name, texts)
        if path is not None and (kept := _read_vectors(path, len(texts), dim)) is not None:
            return kept
        vectors = self._embed(texts)
        if vectors.shape != (len(texts), dim):
            raise DataError(
                f"{len(texts)} texts have embeddings {vectors.shape}, the features' text has {dim} values; "
                "give the text encoder of the features"
            )
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                save_file({"vectors": np.ascontiguousarray(vectors, np.float32)}, part)
        return vectors

    def _cache_path(self, name: str, texts: list[str]) -> Path | None:
        """The file of a video's embeddings; texts and encoder are part of its name."""
        if self._cache is None:
            return None
        said = json.dumps([self._text_encoder, asdict(self.spans), texts])
        return self._cache / f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:16]}.safetensors"

    def _length_ns(self, name: str) -> int:
        """How long a video is: from its features, else its labels, else its words."""
        video = self._videos[name]
        if self.has_features(name):
            return self._video(name).duration_ns
        last = int(video.frames[-1]) if len(video.frames) else 0
        said_ns = max((word.end_ns for word in video.words), default=0)
        return max(round((last + 1) * 1e9 / self._hz), said_ns)

    def _feature_id(self, name: str) -> str | None:
        video = self._videos[name]
        return self._names.get(_normal(video.place.replace("/", "__"))) or self._names.get(_normal(name))

    def _video(self, name: str) -> Clip:
        """A video's features; the last few are kept."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        if self._features is None:
            nothing = FeatureTrack.empty(1)
            clip = Clip(
                name, nothing, nothing, FeatureTrack.empty(self.shapes.text_dim), self._length_ns(name)
            )
        else:
            clip = self._features.load(self._feature_id(name) or name)
        self._open[name] = clip
        if len(self._open) > VIDEOS_IN_MEMORY:
            self._open.popitem(last=False)
        return clip


def _names(features: ClipSet) -> dict[str, str]:
    """The ids of all clips with features, by the form in which videos are compared with them."""
    return {_normal(clip_id): clip_id for split in SPLITS for clip_id in features.ids(split)}


def _normal(name: str) -> str:
    """A clip's id without suffix, spaces as underscores."""
    bare = name[:-4] if name.lower().endswith(".mp4") else name
    return bare.replace(" ", "_")


def _read_vectors(path: Path, count: int, dim: int) -> NDArray[np.float32] | None:
    try:
        with safe_open(path, framework="np") as file:
            vectors: NDArray[np.float32] = file.get_tensor("vectors")
    except (OSError, SafetensorError):
        return None  # missing or incomplete: made again
    good = vectors.shape == (count, dim) and bool(np.isfinite(vectors).all())
    return vectors if good else None


def _around(track: FeatureTrack, at_ns: int, span_s: float) -> NDArray[np.float32]:
    """The frames within half of a span before and after, (n, D)."""
    reach_ns = round(span_s * 0.5e9)
    start, stop = np.searchsorted(track.t_ns, [at_ns - reach_ns, at_ns + reach_ns + 1])
    return track.values[start:stop]


def _spread(values: NDArray[np.float32]) -> FeatureTrack:
    """Frames at even steps up to the window's end, all of them within it."""
    steps = np.arange(1, len(values) + 1, dtype=np.int64)
    return FeatureTrack(steps * (WINDOW_NS // max(1, len(values))), values)
