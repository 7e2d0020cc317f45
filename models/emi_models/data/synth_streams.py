"""Ratings of synthetic clips, and text, audio and vision features made from emotions, topic and person.

Ratings have the published statistics of Hume-Vidmimic2: means, zero inflation, one correlation. The numbers
are from the two-stage system's authors. An intensity is 0 with the published probability, else
`STEP + (1 - STEP) B` with B ~ Beta(1, b), and b from the published mean: small values are more frequent. A
Gaussian copula correlates excitement with joy; all other pairs are independent (published: |r| <= 0.143).

`spoken_words` makes the words that a clip's person says, for people to read. Networks never see them: a
clip's text vector is made from the same truth, but not from these words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.data.clip import FeatureTrack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_models.data.synth import SynthConfig

__all__ = [
    "EXCITEMENT_JOY",
    "MEANS",
    "STEP",
    "ZEROS",
    "Moment",
    "Streams",
    "draw_intensities",
    "draw_length_s",
    "draw_moments",
    "rate",
    "spoken_words",
    "standardised",
]

NS_PER_S: Final = 1_000_000_000
# Lengths are log-normal with the published mean (6.92 s) and 95th percentile (11.48 s); the little that
# the few very long clips add to the mean is subtracted.
LENGTH_LOCATION, LENGTH_SCALE = 1.846, 0.361
SHORTEST_S, LONG_S, LONGEST_S = 0.064, 60.0, 1249.92
# Correlation of text, audio and vision alone with each emotion, in the order of EMOTIONS: table 4 of the
# two-stage paper.
TEXT_SHOWS: Final = np.array([0.484, 0.390, 0.376, 0.426, 0.363, 0.333])
AUDIO_SHOWS: Final = np.array([0.405, 0.347, 0.320, 0.351, 0.350, 0.328])
VISION_SHOWS: Final = np.array([0.049, 0.214, 0.136, 0.082, 0.203, 0.237])


@dataclass(frozen=True, slots=True)
class Moment:
    """A part of a clip, in seconds: the topic of its mark, and whether it shows the clip's emotions."""

    start_s: float
    end_s: float
    topic: int
    salient: bool


def draw_length_s(config: SynthConfig, random: np.random.Generator) -> float:
    """A clip's length in seconds, distributed as in the data set."""
    kind, usual, long = random.random(), random.lognormal(LENGTH_LOCATION, LENGTH_SCALE), random.random()
    if kind < config.shortest:
        return SHORTEST_S
    if kind < config.shortest + config.longest:
        return float(LONG_S * (LONGEST_S / LONG_S) ** long)
    return float(usual)


def draw_moments(
    config: SynthConfig, topic: int, length_s: float, random: np.random.Generator
) -> tuple[Moment, ...]:
    """A clip cut into moments; salient ones have its topic, the others another one."""
    count = max(1, round(length_s / config.moment_s))
    cuts = np.cumsum(random.uniform(0.5, 1.5, count))
    cuts *= length_s / cuts[-1]
    salient = np.zeros(count, bool)
    salient[random.permutation(count)[: max(1, round(config.salient * count))]] = True
    others = (topic + random.integers(1, config.topics, count)) % config.topics
    any_topic = random.integers(config.topics, size=count)
    topics = np.where(salient, topic, others) if config.keyed else any_topic
    starts = [0.0, *cuts[:-1].tolist()]
    return tuple(
        Moment(start, end, int(mark), bool(own))
        for start, end, mark, own in zip(starts, cuts.tolist(), topics, salient, strict=True)
    )


class Streams:
    """A corpus' fixed maps from emotions and topics to features, and the tracks made with them.

    Emotions are standardised, one row (6,) for each moment: the clip's emotions in salient moments.
    """

    def __init__(self, config: SynthConfig, random: np.random.Generator) -> None:
        self.config = config
        sizes, factors = config.sizes, 6 + config.topics
        self._text = _directions(factors, sizes.text_dim, random)
        self._audio = _directions(factors, sizes.audio_dim, random)
        self._vision = _directions(factors, sizes.vision_dim, random)
        self._hand = random.standard_normal(sizes.vision_dim)  # what hides a face

    def text(
        self, own: NDArray[np.float64], topic: int, known_ns: int, random: np.random.Generator
    ) -> FeatureTrack:
        """The one vector of a clip's text, known from `known_ns` on."""
        config = self.config
        shown = _shown(own[None], TEXT_SHOWS * config.text_clarity, np.array([True]), random)[0]
        factors = np.concatenate([shown, config.mark * np.eye(config.topics)[topic]])
        noise = random.standard_normal(self._text.shape[1])
        vector = factors @ self._text + config.text_noise * noise
        return FeatureTrack(np.array([known_ns], np.int64), vector[None].astype(np.float32))

    def audio(
        self,
        emotions: NDArray[np.float64],
        moments: Sequence[Moment],
        person: NDArray[np.float64],
        random: np.random.Generator,
    ) -> FeatureTrack:
        """Audio; in some clips drowned in noise for a while."""
        config = self.config
        t_s = _times_s(moments[-1].end_s, config.sizes.audio_hz)
        strength = AUDIO_SHOWS * config.audio_clarity
        values = self._frames(t_s, emotions, moments, strength, self._audio, random) + person
        if random.random() < config.drowned:
            lost = _run(len(values), random)
            values[lost] += config.drowning_noise * random.standard_normal(values[lost].shape)
        return _track(t_s, values)

    def vision(
        self,
        emotions: NDArray[np.float64],
        moments: Sequence[Moment],
        person: NDArray[np.float64],
        random: np.random.Generator,
    ) -> FeatureTrack:
        """Vision; in some clips the face is hidden for a while, with the features of the obstacle."""
        config = self.config
        t_s = _times_s(moments[-1].end_s, config.sizes.vision_hz)
        strength = VISION_SHOWS * config.vision_clarity
        values = self._frames(t_s, emotions, moments, strength, self._vision, random) + person
        if random.random() < config.hidden:
            lost = _run(len(values), random)
            values[lost] = self._hand + config.noise * random.standard_normal(values[lost].shape)
        return _track(t_s, values)

    def _frames(
        self,
        t_s: NDArray[np.float64],
        emotions: NDArray[np.float64],
        moments: Sequence[Moment],
        strength: NDArray[np.float64],
        directions: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Frames (T, D): emotions that rise and fall within each moment, the moment's mark, and noise."""
        config = self.config
        ends = np.array([moment.end_s for moment in moments])
        starts = np.array([moment.start_s for moment in moments])
        which = np.minimum(np.searchsorted(ends, t_s, side="left"), len(moments) - 1)
        phase = (t_s - starts[which]) / (ends - starts)[which]
        salient = np.array([moment.salient for moment in moments])
        shown = (
            _shown(emotions, strength, salient, random)[which] * (0.5 + 0.5 * np.sin(np.pi * phase))[:, None]
        )
        marks = config.mark * np.eye(config.topics)[[moment.topic for moment in moments]]
        factors = np.concatenate([shown, marks[which]], axis=1)  # (T, 6 + topics)
        return factors @ directions + config.noise * random.standard_normal((len(t_s), directions.shape[1]))


def _shown(
    emotions: NDArray[np.float64],
    strength: NDArray[np.float64],
    salient: NDArray[np.bool_],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Expressed emotions (M, 6): their correlation with `emotions` is `strength` (6,), their variance 1.

    Salient moments share one error, so that an average over them does not remove it.
    """
    error = random.standard_normal((len(emotions) + 1, 6))
    error = np.where(salient[:, None], error[-1], error[:-1])
    return strength * emotions + np.sqrt(1 - strength**2) * error


def _directions(count: int, dim: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Orthonormal rows (count, dim)."""
    return np.asarray(np.linalg.qr(random.standard_normal((dim, count)))[0].T)


def _times_s(length_s: float, rate_hz: float) -> NDArray[np.float64]:
    """Stamps of the frames of a clip, at least one."""
    return np.arange(max(1, int(length_s * rate_hz))) / rate_hz


def _run(count: int, random: np.random.Generator) -> slice:
    """A run of a fifth to three fifths of `count` frames."""
    length = round(count * random.uniform(0.2, 0.6))
    start = int(random.integers(0, count - length + 1))
    return slice(start, start + length)


def _track(t_s: NDArray[np.float64], values: NDArray[np.float64]) -> FeatureTrack:
    return FeatureTrack(np.round(t_s * NS_PER_S).astype(np.int64), values.astype(np.float32))


MEANS: Final = np.array([0.1785, 0.1253, 0.0967, 0.0214, 0.1420, 0.1157])  # order of EMOTIONS
ZEROS: Final = np.array([0.553, 0.636, 0.675, 0.899, 0.618, 0.675])  # share of clips that are rated 0
EXCITEMENT_JOY: Final = 0.229  # correlation of the ratings
STEP: Final = 0.05  # a rating is a mean over people: a multiple of 1/20
# Correlation of the two Gaussians from which EXCITEMENT_JOY results after zero inflation and rounding.
_COPULA: Final = 0.320

_GIVEN_SEEN: Final = (MEANS / (1 - ZEROS) - STEP) / (1 - STEP)  # mean of B
_SHAPE: Final = 1 / _GIVEN_SEEN - 1  # b
_SQUARE: Final = 2 / ((1 + _SHAPE) * (2 + _SHAPE))  # mean of B²
_SD: Final = np.sqrt(
    (1 - ZEROS) * (STEP**2 + 2 * STEP * (1 - STEP) * _GIVEN_SEEN + (1 - STEP) ** 2 * _SQUARE) - MEANS**2
)


def draw_intensities(random: np.random.Generator) -> NDArray[np.float64]:
    """Latent intensities (6,), each 0 or in [STEP, 1)."""
    normal = random.standard_normal(6)
    normal[5] = _COPULA * normal[4] + math.sqrt(1 - _COPULA**2) * normal[5]
    uniform = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in normal])
    seen = np.clip((uniform - ZEROS) / (1 - ZEROS), 0.0, None)
    size = 1 - (1 - seen) ** (1 / _SHAPE)  # the quantile function of Beta(1, b)
    return np.where(uniform > ZEROS, STEP + (1 - STEP) * size, 0.0)


def rate(intensities: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Ratings (6,) of intensities: multiples of STEP, correct in the mean, and 0 only for 0."""
    steps = intensities / STEP
    whole = np.floor(steps + 1e-9)
    up = random.random(6) < steps - whole
    return np.asarray((whole + up) * STEP, np.float32)


def standardised(intensities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intensities (6,) minus their mean, divided by their standard deviation."""
    return np.asarray((intensities - MEANS) / _SD)


TOPICS: Final = (
    "my sister",
    "the match",
    "that film",
    "our garden",
    "the exam",
    "the journey",
    "work",
    "the dog",
)
FEELINGS: Final = (
    *("I really look up to this", "it makes me laugh", "I will see it through"),
    *("it hurts me too", "I can hardly wait", "I am so happy"),
)
STRONG: Final = 0.5


def spoken_words(topic: int, intensities: NDArray[np.float64]) -> str:
    """A sentence about topic number `topic` that expresses six intensities in [0, 1]."""
    about = TOPICS[topic % len(TOPICS)]
    felt = [
        f"{feeling}{', truly' if value > STRONG else ''}"
        for feeling, value in zip(FEELINGS, intensities, strict=True)
        if value > 0
    ]
    return f"So, about {about}: {', and '.join(felt) or 'well, it is what it is'}."
