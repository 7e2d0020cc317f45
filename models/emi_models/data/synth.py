"""A synthetic corpus with known truth: what it shows is that the machinery learns, never how people feel.

Each clip has six intensities, a topic and a person, and comes from the seed and its number alone:

- words: one vector that carries the intensities, noisily, and the topic, clearly;
- voice and face: the clip is cut into moments. Each frame carries the mark of its moment's topic, and six
  emotions. In *salient* moments the topic is the clip's own and so are the emotions, noisily; the others are
  distractors, of other topics, with emotions that are not the clip's. So who knows the topic, from the words,
  knows where to look and listen, which is what an anchor is for; a mean over frames cannot tell them apart;
- people look and sound like themselves in every frame, and nobody is in both splits;
- corruption: noise in every frame, faces hidden and voices drowned for a while, streams that are missing.

Words show emotions more than voices do, and these more than faces, by emotion as table 4 of the two-stage
paper has it. Ratings have the published statistics (`synth_labels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.data.clip import WINDOW_S, Clip, Track
from emi_models.data.synth_labels import draw_intensities, rate, standardised
from emi_models.data.synth_streams import Streams, draw_length_s, draw_moments
from emi_models.inputs import FusionShapes
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from emi_models.data.synth_config import SynthConfig
    from emi_models.data.synth_streams import Moment
    from emi_models.vocabulary import Modality

__all__ = ["ENCODERS", "SynthCorpus", "Truth"]

NS_PER_S: Final = 1_000_000_000
TRAIN_SHARE: Final = 8072 / (8072 + 4588)  # of the data set's rated clips
PEOPLE_PER_CLIP: Final = 557 / 17246
ENCODERS: Final[Mapping[Modality, str]] = dict.fromkeys(MODALITIES, "synthetic")


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What a clip was made of: latent intensities (6,), topic, person, and its moments in order of time."""

    intensities: NDArray[np.float64]
    topic: int
    person: int
    moments: tuple[Moment, ...]


class SynthCorpus:
    """Clips in memory, each made anew whenever it is asked for; a `ClipSet`."""

    licence = "Apache-2.0: made by a program, of nobody"
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
        """What this is, for a checkpoint's header."""
        return f"synthetic corpus of {self.config.clips} clips, seed {self.config.seed}: no people in it"

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
        """What the clip is made of."""
        random = self._random("plot", clip_id)
        topic = int(random.integers(self.config.topics))
        people = self._people[self._split(clip_id)]
        person = people[int(random.integers(len(people)))]
        length_s = draw_length_s(self.config, random)
        moments = draw_moments(self.config, topic, length_s, random)
        return Truth(self._rated(clip_id)[0], topic, person, moments)

    def load(self, clip_id: str) -> Clip:
        """One clip with its features; an empty track is a stream that is missing."""
        config, truth = self.config, self.truth(clip_id)
        own = standardised(truth.intensities)
        random = self._random("decoys", clip_id)
        emotions = np.array(
            [own if m.salient else standardised(draw_intensities(random)) for m in truth.moments]
        )
        duration_ns = round(truth.moments[-1].end_s * NS_PER_S)
        # The moment from which a whole clip's words are known, as in `vidmimic`.
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
            vision=Track.empty(config.sizes.vision_dim) if "vision" in missing else vision,
            audio=Track.empty(config.sizes.audio_dim) if "audio" in missing else audio,
            text=Track.empty(config.sizes.text_dim) if "text" in missing else text,
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
        return intensities, rate(intensities, random)

    def _split(self, clip_id: str) -> str:
        return "train" if clip_id in self._train else "valid"

    @cached_property
    def _train(self) -> frozenset[str]:
        return frozenset(self.splits["train"])

    def _person(self, part: str, person: int) -> NDArray[np.float64]:
        dim = self.config.sizes.audio_dim if part == "voice" else self.config.sizes.vision_dim
        return self.config.person * self._random(part, str(person)).standard_normal(dim)

    def _random(self, purpose: str, key: str = "0") -> np.random.Generator:
        """Draws for one purpose: what one setting changes leaves all others as they are."""
        return np.random.default_rng([self.config.seed, *purpose.encode(), int(key)])
