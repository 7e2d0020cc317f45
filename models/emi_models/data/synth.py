"""A synthetic corpus with known truth: it tests whether training works, and says nothing about people.

Each clip has six intensities, a topic and a person. It depends only on the seed and its number:

- text: one vector with the intensities (with noise) and the topic (clearly);
- audio and vision: the clip is cut into moments. Each frame has the mark of its moment's topic, and six
  emotions. *Salient* moments have the clip's topic and its emotions (with noise). The other moments are
  distractors: another topic, and emotions that are not the clip's. A network that reads the topic from the
  text can find the salient moments; a mean over frames cannot tell them apart;
- each person has a constant offset in every frame, and no person is in both splits;
- corruption: noise in every frame, faces hidden and voices drowned for a while, missing streams.

Text shows emotions more strongly than audio, and audio more strongly than vision; the strength for each
emotion is from table 4 of the two-stage paper. Ratings have the published statistics (`synth_streams`).

`SynthConfig` holds all settings of the corpus. `write_corpus` writes it in the layout of Hume-Vidmimic2, with
its truth:

::

    DIR/train_split.csv, valid_split.csv    ids of five digits and ratings
    DIR/vit/00000.pkl, wav2vec2/00000.pkl   (T, D) arrays; no file where the stream is missing
    DIR/gte/00000.pkl                       (D,) array; no file where there are no words
    DIR/text/00000.txt                      the words, for people to read; empty if there are none
    DIR/raters.csv                          how many people rated each clip, with `raters`
    DIR/dataset.json                        frame rates and descriptions of the features
    DIR/truth.json                          the settings, and the truth of each clip

`probe` measures what a linear model finds in a corpus; the modalities' strengths are set and checked with it.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pickle import dumps  # noqa: TID251  # writing runs nothing, and the layout's loaders want pickles
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from emi_models import MODALITIES
from emi_models.data.clip import WINDOW_S, Clip, FeatureTrack
from emi_models.data.synth_streams import (
    Streams,
    draw_intensities,
    draw_length_s,
    draw_moments,
    rate,
    spoken_words,
    standardised,
)
from emi_models.data.vidmimic import CACHE
from emi_models.errors import EmiError
from emi_models.inputs import FusionShapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import FeatureTrack
    from emi_models.data.synth_streams import Moment

__all__ = [
    "ENCODERS",
    "HEADER",
    "NOTICE",
    "OFFICIAL_SIZES",
    "SMALL_SIZES",
    "Pooling",
    "SynthConfig",
    "SynthCorpus",
    "SynthError",
    "SynthSizes",
    "Truth",
    "expected_bytes",
    "probe",
    "write_corpus",
]

NS_PER_S: Final = 1_000_000_000
Pooling = Literal["mean", "marked", "salient"]
RIDGE: Final = 1.0  # on standardised features
TRAIN_SHARE: Final = 8072 / (8072 + 4588)  # of the data set's rated clips
RATERS: Final = (1, 9)  # of a clip, fewest and most
PEOPLE_PER_CLIP: Final = 557 / 17246
ENCODERS: Final[Mapping[Modality, str]] = dict.fromkeys(MODALITIES, "synthetic")


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The truth of a clip: latent intensities (6,), topic, person, and its moments in order of time."""

    intensities: NDArray[np.float64]
    topic: int
    person: int
    moments: tuple[Moment, ...]


class SynthCorpus:
    """A `ClipSet` whose clips are generated each time they are read."""

    licence = "Apache-2.0: made by a program, contains no person"
    encoders = ENCODERS

    def __init__(self, config: SynthConfig) -> None:
        self.config = config
        self._streams = Streams(config, self._random("maps"))
        people = max(4, round(PEOPLE_PER_CLIP * config.clips))
        learned = round(TRAIN_SHARE * people)
        self._people = {"train": range(learned), "valid": range(learned, people)}

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of a 12 s window of these clips."""
        sizes = self.config.sizes
        return FusionShapes(
            vision_frames=round(WINDOW_S * sizes.vision_hz),
            vision_dim=sizes.vision_dim,
            audio_frames=round(WINDOW_S * sizes.audio_hz),
            audio_dim=sizes.audio_dim,
            text_dim=sizes.text_dim,
        )

    @property
    def description(self) -> str:
        """A description of the corpus, for a checkpoint's header."""
        raters = f", {RATERS[0]} to {RATERS[1]} raters a clip" if self.config.raters else ""
        return (
            f"synthetic corpus of {self.config.clips} clips, seed {self.config.seed}{raters}: no people in it"
        )

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Ids of `train` and `valid`, each in order, in the data set's proportion."""
        shuffled = self._random("splits").permutation(self.config.clips)
        train = round(TRAIN_SHARE * self.config.clips)
        parts = {"train": shuffled[:train], "valid": shuffled[train:]}
        return {split: tuple(f"{i:05d}" for i in sorted(part)) for split, part in parts.items()}

    def ids(self, split: str) -> tuple[str, ...]:
        """The clips of `train` or `valid`; there is no `test`."""
        return self.splits.get(split, ())

    def targets(self, split: str) -> NDArray[np.float32]:
        """Ratings (N, 6) of `ids(split)`."""
        rows = [self._rated(clip_id)[1] for clip_id in self.ids(split)]
        return np.asarray(rows, np.float32).reshape(-1, 6)

    def truth(self, clip_id: str) -> Truth:
        """The truth of a clip."""
        random = self._random("plot", clip_id)
        topic = int(random.integers(self.config.topics))
        people = self._people[self._split(clip_id)]
        person = people[int(random.integers(len(people)))]
        length_s = draw_length_s(self.config, random)
        moments = draw_moments(self.config, topic, length_s, random)
        return Truth(self._rated(clip_id)[0], topic, person, moments)

    def load(self, clip_id: str) -> Clip:
        """One clip with its features; a missing stream is an empty track."""
        config, truth = self.config, self.truth(clip_id)
        own = standardised(truth.intensities)
        random = self._random("decoys", clip_id)
        emotions = np.array(
            [own if m.salient else standardised(draw_intensities(random)) for m in truth.moments]
        )
        duration_ns = round(truth.moments[-1].end_s * NS_PER_S)
        # From then on the words are known, as in `vidmimic`.
        known_ns = min(duration_ns, round(WINDOW_S * NS_PER_S))
        text = self._streams.text(own, truth.topic, known_ns, self._random("text", clip_id))
        audio = self._streams.audio(
            emotions, truth.moments, self._person("voice", truth.person), self._random("audio", clip_id)
        )
        vision = self._streams.vision(
            emotions, truth.moments, self._person("face", truth.person), self._random("vision", clip_id)
        )
        missing = self.missing(clip_id)
        return Clip(
            id=clip_id,
            vision=FeatureTrack.empty(config.sizes.vision_dim) if "vision" in missing else vision,
            audio=FeatureTrack.empty(config.sizes.audio_dim) if "audio" in missing else audio,
            text=FeatureTrack.empty(config.sizes.text_dim) if "text" in missing else text,
            duration_ns=duration_ns,
            targets=self._rated(clip_id)[1],
        )

    def missing(self, clip_id: str) -> frozenset[Modality]:
        """The modalities that the clip lacks."""
        config = self.config
        text = config.missing_text_train if self._split(clip_id) == "train" else config.missing_text_valid
        shares: dict[Modality, float] = {
            "vision": config.missing_vision,
            "audio": config.missing_audio,
            "text": text,
        }
        chance = self._random("missing", clip_id).random(3)
        return frozenset(m for (m, share), drawn in zip(shares.items(), chance, strict=True) if drawn < share)

    def _rated(self, clip_id: str) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        random = self._random("ratings", clip_id)
        intensities = draw_intensities(random)
        if self.config.raters:
            people = self.raters(clip_id)
            return intensities, np.asarray(random.binomial(people, intensities) / people, np.float32)
        return intensities, rate(intensities, random)

    def raters(self, clip_id: str) -> int:
        """How many people rated the clip, if `config.raters` says that people did."""
        return int(self._random("raters", clip_id).integers(RATERS[0], RATERS[1], endpoint=True))

    def _split(self, clip_id: str) -> str:
        return "train" if clip_id in self._train else "valid"

    @cached_property
    def _train(self) -> frozenset[str]:
        return frozenset(self.splits["train"])

    def _person(self, part: str, person: int) -> NDArray[np.float64]:
        dim = self.config.sizes.audio_dim if part == "voice" else self.config.sizes.vision_dim
        return self.config.person * self._random(part, str(person)).standard_normal(dim)

    def _random(self, purpose: str, key: str = "0") -> np.random.Generator:
        """A generator for one purpose, so that a setting changes only the draws of its purpose."""
        return np.random.default_rng([self.config.seed, *purpose.encode(), int(key)])


class SynthError(EmiError, ValueError):
    """A synthetic corpus cannot be made with these settings, or cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSizes:
    """Widths of one frame and frames per second."""

    vision_dim: int
    audio_dim: int
    text_dim: int
    vision_hz: float
    audio_hz: float


# Small enough that a network trains on one core in about a minute.
SMALL_SIZES: Final = SynthSizes(vision_dim=32, audio_dim=48, text_dim=64, vision_hz=6.0, audio_hz=10.0)
# The features that come with Hume-Vidmimic2 (ViT, wav2vec 2.0), and a text encoder of the papers' width.
OFFICIAL_SIZES: Final = SynthSizes(vision_dim=384, audio_dim=768, text_dim=768, vision_hz=6.0, audio_hz=50.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthConfig:
    """The settings of a corpus; shares are in [0, 1]."""

    clips: int
    seed: int = 0
    sizes: SynthSizes = SMALL_SIZES
    # The published share of clips without words. For missing vision and audio no share is published.
    missing_text_train: float = 0.0567
    missing_text_valid: float = 0.0634
    missing_vision: float = 0.01
    missing_audio: float = 0.005
    shortest: float = 0.001  # share of clips of the data set's shortest length, 0.064 s
    longest: float = 0.0005  # share of clips from one minute to the data set's longest, 1250 s
    topics: int = 6
    salient: float = 0.5  # share of a clip's moments that are salient; at least one is
    moment_s: float = 1.6  # mean length of a moment
    keyed: bool = True  # False: salient moments have random marks, so the text does not help to find them
    # Correlation of a modality's salient moments with the emotions, relative to table 4 of the two-stage
    # paper; above 1 for audio and vision, because distractors reduce it. See docs/benchmarks.
    text_clarity: float = 1.2
    audio_clarity: float = 1.35
    vision_clarity: float = 1.4
    mark: float = 2.0  # length of a topic's mark, in standard deviations of an emotion
    person: float = 0.2  # standard deviation of a person's own look and sound, in each dimension
    noise: float = 0.5  # standard deviation of a frame's noise, in each dimension
    text_noise: float = 0.1  # of the words' vector, in each dimension
    drowning_noise: float = 2.0  # of a voice while it is drowned, in each dimension
    raters: bool = False  # True: 1 to 9 people rate a clip, each of whom sees an emotion or not
    hidden: float = 0.15  # share of clips whose face is hidden for a while
    drowned: float = 0.10  # share of clips whose sound is drowned for a while

    def __post_init__(self) -> None:
        if not 10 <= self.clips <= 99_999:
            raise SynthError(f"{self.clips} clips: give 10 to 99999, since an id has five digits")
        if not 0 <= self.seed < 2**32:
            raise SynthError(f"seed {self.seed}: give 0 to 4294967295")
        if self.topics < 2:
            raise SynthError(f"{self.topics} topics: a distractor needs another topic, give at least 2")
        for field in fields(self):
            if field.name.startswith(("missing_", "short", "long", "salient", "hidden", "drowned")):
                value = getattr(self, field.name)
                if not 0.0 <= value <= 1.0:
                    raise SynthError(f"{field.name} is {value:g}: it is a share, give 0 to 1")
        widths = (self.sizes.vision_dim, self.sizes.audio_dim, self.sizes.text_dim)
        if min(widths) < 6 + self.topics:
            raise SynthError(
                f"a frame of {min(widths)} values cannot hold 6 emotions and {self.topics} topics; "
                f"give at least {6 + self.topics}"
            )


HEADER: Final = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
NOTICE: Final = "synthetic: made by `emi synth`, contains no person; scores on it say nothing about people"
FOLDERS: Final = {"vision": "vit", "audio": "wav2vec2", "text": "gte"}
WORDS, DATASET, TRUTH, PEOPLE = "text", "dataset.json", "truth.json", "raters.csv"
PICKLE_PROTOCOL: Final = 4  # read by Python 3.4 and later
MEAN_LENGTH_S: Final = 6.93
OVERHEAD_BYTES: Final = 1100  # per clip: pickles' headers, words, ratings, truth


def expected_bytes(corpus: SynthCorpus) -> int:
    """About how many bytes the corpus' files take."""
    sizes = corpus.config.sizes
    per_s = sizes.vision_hz * sizes.vision_dim + sizes.audio_hz * sizes.audio_dim
    return round(corpus.config.clips * (4 * (MEAN_LENGTH_S * per_s + sizes.text_dim) + OVERHEAD_BYTES))


def write_corpus(
    corpus: SynthCorpus, folder: Path, report: Callable[[int], None], *, replace: bool = False
) -> int:
    """Write all clips below `folder`, which is made if it does not exist; return how many bytes were written.

    Args:
        corpus: the clips.
        folder: the target.
        report: called after each clip with how many are done.
        replace: first remove the synthetic corpus in the folder.

    Raises:
        SynthError: the folder is not empty and `replace` is False, or it holds something else; there is not
            enough space; or a file cannot be written.
    """
    needed = expected_bytes(corpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            _make_way(folder, replace=replace)
        if (free := shutil.disk_usage(folder).free) < needed:
            raise SynthError(
                f"{folder} has {free / 1e9:.1f} GB free, the corpus takes about {needed / 1e9:.1f} GB; "
                "make fewer clips, or name a folder on another disk"
            )
        return _write(corpus, folder, report)
    except OSError as error:
        raise SynthError(f"{folder} cannot be written: {error.strerror}; name another folder") from error


def _make_way(folder: Path, *, replace: bool) -> None:
    """Remove an earlier corpus and the readers' caches of it; refuse any other content."""
    truth = folder / TRUTH
    if not truth.is_file() or NOTICE not in truth.read_text(encoding="utf-8"):
        raise SynthError(f"{folder} is not empty and holds no synthetic corpus; name another folder")
    if not replace:
        raise SynthError(
            f"{folder} holds a synthetic corpus; name another folder, or replace it with --force"
        )
    for name in (*FOLDERS.values(), WORDS, CACHE):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("train_split.csv", "valid_split.csv", DATASET, TRUTH, PEOPLE):
        (folder / name).unlink(missing_ok=True)


def _write(corpus: SynthCorpus, folder: Path, report: Callable[[int], None]) -> int:
    for name in (*FOLDERS.values(), WORDS):
        (folder / name).mkdir(exist_ok=True)
    metadata = {"notice": NOTICE, "settings": asdict(corpus.config)}
    # Written first, so that an interrupted corpus is recognised and can be replaced.
    (folder / TRUTH).write_text(json.dumps(metadata) + "\n", encoding="utf-8")
    written = 0
    truths: dict[str, object] = {}
    for clip_id in sorted(corpus.ids("train") + corpus.ids("valid")):
        clip, truth = corpus.load(clip_id), corpus.truth(clip_id)
        arrays = {"vision": clip.vision.values, "audio": clip.audio.values, "text": clip.text.values}
        for modality, values in arrays.items():
            path = folder / FOLDERS[modality] / f"{clip_id}.pkl"
            if len(values):
                array = values[0] if modality == "text" else values
                written += path.write_bytes(dumps(array, PICKLE_PROTOCOL))
        words = spoken_words(truth.topic, truth.intensities) if len(clip.text.values) else ""
        written += (folder / WORDS / f"{clip_id}.txt").write_text(words, encoding="utf-8")
        truths[clip_id] = _described(truth)
        report(len(truths))
    for split in ("train", "valid"):
        written += (folder / f"{split}_split.csv").write_text(_ratings(corpus, split), encoding="utf-8")
    if corpus.config.raters:
        lines = (f"{clip_id},{corpus.raters(clip_id)}\n" for clip_id in truths)
        written += (folder / PEOPLE).write_text("id,raters\n" + "".join(lines), encoding="utf-8")
    for name, content in ((DATASET, _dataset(corpus)), (TRUTH, metadata | {"clips": truths})):
        written += (folder / name).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return written


def _ratings(corpus: SynthCorpus, split: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER.split(","))
    for clip_id, row in zip(corpus.ids(split), corpus.targets(split).tolist(), strict=True):
        writer.writerow([clip_id, *(f"{value:.4g}" for value in row)])
    return text.getvalue()


def _dataset(corpus: SynthCorpus) -> dict[str, object]:
    return {
        "notice": NOTICE,
        "vision_hz": corpus.config.sizes.vision_hz,
        "audio_hz": corpus.config.sizes.audio_hz,
        "features": FOLDERS,
        "encoders": dict(corpus.encoders),
        "description": corpus.description,
        "licence": corpus.licence,
    }


def _described(truth: Truth) -> dict[str, object]:
    """A clip's truth as JSON: times in seconds, and for each moment [start, end, topic, salient]."""
    return {
        "intensities": [round(value, 4) for value in truth.intensities.tolist()],
        "topic": truth.topic,
        "person": truth.person,
        "moments": [[round(m.start_s, 3), round(m.end_s, 3), m.topic, int(m.salient)] for m in truth.moments],
    }


def probe(corpus: SynthCorpus, modality: Modality, pooling: Pooling = "mean") -> NDArray[np.float64]:
    """Pearson correlations (6,) on `valid` of a ridge regression on `train` with one modality.

    Args:
        corpus: the clips.
        modality: which one; a clip without it counts as zeros.
        pooling: which frames of a clip's first 12 s are averaged: all (`mean`); those with the mark of the
            clip's topic, which the text names (`marked`); those that show the clip's emotions, which only the
            truth knows (`salient`).
    """
    learn, score = (_features(corpus, split, modality, pooling) for split in ("train", "valid"))
    centre, spread = learn.mean(axis=0), learn.std(axis=0) + 1e-9
    learn, score = (learn - centre) / spread, (score - centre) / spread
    targets = corpus.targets("train").astype(np.float64)
    gram = learn.T @ learn + RIDGE * np.eye(learn.shape[1])
    weights = np.linalg.solve(gram, learn.T @ (targets - targets.mean(axis=0)))
    found, truth = score @ weights, corpus.targets("valid")
    return np.array([np.corrcoef(found[:, e], truth[:, e])[0, 1] for e in range(6)])


def _features(corpus: SynthCorpus, split: str, modality: Modality, pooling: Pooling) -> NDArray[np.float64]:
    """One row a clip."""
    rows = []
    for clip_id in corpus.ids(split):
        clip = corpus.load(clip_id)
        track: FeatureTrack = getattr(clip, modality)
        keep = track.t_ns <= round(WINDOW_S * NS_PER_S)
        if modality != "text" and pooling != "mean":
            chosen = keep & _chosen(track, corpus.truth(clip_id), pooling)
            keep = chosen if chosen.any() else keep
        values = track.values[keep]
        rows.append(values.mean(axis=0) if len(values) else np.zeros(track.values.shape[1]))
    return np.asarray(rows, np.float64)


def _chosen(track: FeatureTrack, truth: Truth, pooling: Pooling) -> NDArray[np.bool_]:
    chosen = np.zeros(len(track.t_ns), bool)
    for moment in truth.moments:
        if moment.salient if pooling == "salient" else moment.topic == truth.topic:
            chosen |= (track.t_ns >= moment.start_s * NS_PER_S) & (track.t_ns < moment.end_s * NS_PER_S)
    return chosen
