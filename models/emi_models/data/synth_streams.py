"""How a synthetic clip's words, voice and face come of its emotions, its topic and its person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_models.data.clip import Track

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_models.data.synth_config import SynthConfig

__all__ = ["Moment", "Streams", "draw_length_s", "draw_moments"]

NS_PER_S: Final = 1_000_000_000
# Lengths are log-normal with the published mean (6.92 s) and 95th percentile (11.48 s), less what the few
# very long clips add to the mean.
LENGTH_LOCATION, LENGTH_SCALE = 1.846, 0.361
SHORTEST_S, LONG_S, LONGEST_S = 0.064, 60.0, 1249.92
# Correlation with each emotion, in the order of EMOTIONS, of words, voices and faces alone: table 4 of the
# two-stage paper.
TEXT_SHOWS: Final = np.array([0.484, 0.390, 0.376, 0.426, 0.363, 0.333])
AUDIO_SHOWS: Final = np.array([0.405, 0.347, 0.320, 0.351, 0.350, 0.328])
VISION_SHOWS: Final = np.array([0.049, 0.214, 0.136, 0.082, 0.203, 0.237])


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a clip, in seconds: the topic it bears, and whether it shows the clip's emotions."""

    start_s: float
    end_s: float
    topic: int
    salient: bool


def draw_length_s(config: SynthConfig, random: np.random.Generator) -> float:
    """A clip's length in seconds, distributed as the data set's."""
    kind, usual, long = random.random(), random.lognormal(LENGTH_LOCATION, LENGTH_SCALE), random.random()
    if kind < config.shortest:
        return SHORTEST_S
    if kind < config.shortest + config.longest:
        return float(LONG_S * (LONGEST_S / LONG_S) ** long)
    return float(usual)


def draw_moments(
    config: SynthConfig, topic: int, length_s: float, random: np.random.Generator
) -> tuple[Moment, ...]:
    """A clip cut into moments; salient ones bear its topic, the others another one."""
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
    """A corpus' fixed maps from emotions and topics to features, and the tracks that they give.

    Emotions are standardised, one row (6,) for each moment: the clip's own in the salient ones.
    """

    def __init__(self, config: SynthConfig, random: np.random.Generator) -> None:
        self.config = config
        sizes, factors = config.sizes, 6 + config.topics
        self._text = _directions(factors, sizes.text_dim, random)
        self._audio = _directions(factors, sizes.audio_dim, random)
        self._vision = _directions(factors, sizes.vision_dim, random)
        self._hand = random.standard_normal(sizes.vision_dim)  # what hides a face

    def text(self, own: NDArray[np.float64], topic: int, known_ns: int, random: np.random.Generator) -> Track:
        """The one vector of a clip's words, which are known from `known_ns` on."""
        config = self.config
        shown = _shown(own[None], TEXT_SHOWS * config.text_clarity, np.array([True]), random)[0]
        factors = np.concatenate([shown, config.mark * np.eye(config.topics)[topic]])
        noise = random.standard_normal(self._text.shape[1])
        vector = factors @ self._text + config.text_noise * noise
        return Track(np.array([known_ns], np.int64), vector[None].astype(np.float32))

    def audio(
        self,
        emotions: NDArray[np.float64],
        moments: Sequence[Moment],
        person: NDArray[np.float64],
        random: np.random.Generator,
    ) -> Track:
        """A voice, drowned in noise for a while in some clips."""
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
    ) -> Track:
        """A face, hidden for a while in some clips: the features there are those of what hides it."""
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
        """Frames (T, D): emotions that rise and fall within their moment, its mark, and noise."""
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
    """What is expressed of emotions (M, 6), which correlates with them by `strength` (6,); unit variance.

    Salient moments share one error, so that listening longer to them does not average it out.
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
    """A fifth to three fifths of so many frames, in one piece."""
    length = round(count * random.uniform(0.2, 0.6))
    start = int(random.integers(0, count - length + 1))
    return slice(start, start + length)


def _track(t_s: NDArray[np.float64], values: NDArray[np.float64]) -> Track:
    return Track(np.round(t_s * NS_PER_S).astype(np.int64), values.astype(np.float32))
