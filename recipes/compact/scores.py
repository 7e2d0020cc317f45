"""Score a network: on words, faces and voices that people rated, and on displays that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models import EMOTIONS
from emi_models.inputs import FusionInputs
from recipes.compact.goemotions import mean_pearson, pearson
from recipes.compact.hearing import AROUSED, CALM, voice_window
from recipes.compact.seeing import at_rest, face_window
from recipes.compact.sentences import HELD_OUT
from recipes.compact.sizes import SHAPES
from recipes.compact.voices import shown
from recipes.compact.words import text_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.base import FusionNetwork
    from recipes.compact.faces import FaceWindows
    from recipes.compact.ferplus import RatedFaces
    from recipes.compact.sentences import Sentence
    from recipes.compact.voices import VoiceTakes

__all__ = [
    "Acted",
    "HeldOut",
    "all_scores",
    "auc",
    "dev_scores",
    "face_scores",
    "infer",
    "interval",
    "prototype_scores",
    "sentence_scores",
    "spans",
    "voice_scores",
    "windows_of",
    "with_face",
    "with_face_values",
    "with_voice",
]

ROWS: Final = 256  # windows at a time
RATED_AS: Final = {"joy": "happiness", "empathic_pain": "sadness", "excitement": "surprise"}
MOST: Final = 0.6  # of the raters, who call a face neutral or angry
TOLERANCE: Final = 0.05
REPEATS: Final = 1000  # of the bootstrap
TAILS: Final = (0.025, 0.975)  # intervals cover 95 %


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Acted:
    """Sounds of acted emotions, N of them: recordings softer, as they are, and louder.

    `frames` (T, 73) of each, its emotion and its speaker (N,), and the number of its recording (N,), which is
    the same at each gain.
    """

    frames: Sequence[NDArray[np.float32]]
    emotions: NDArray[np.str_]
    speakers: NDArray[np.str_]
    numbers: NDArray[np.intp]

    @property
    def calm(self) -> list[NDArray[np.float32]]:
        """The sounds of neutral speech."""
        return [f for f, emotion in zip(self.frames, self.emotions, strict=True) if emotion == "neutral"]

    def drawer(self) -> Callable[[np.random.Generator], NDArray[np.intp]]:
        """Draws sounds for a bootstrap: speakers, of each drawn one recordings, and all sounds of each."""
        of_speaker = [
            [np.flatnonzero(self.numbers == n) for n in np.unique(self.numbers[self.speakers == speaker])]
            for speaker in np.unique(self.speakers)
        ]

        def draw(rng: np.random.Generator) -> NDArray[np.intp]:
            rows = []
            for speaker in rng.integers(len(of_speaker), size=len(of_speaker)):
                sounds = of_speaker[speaker]
                rows += [sounds[index] for index in rng.integers(len(sounds), size=len(sounds))]
            return np.concatenate(rows)

        return draw


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HeldOut:
    """What a network is scored on: none of it was trained on.

    `texts` are embeddings (N, 384) of comments, by variant, `targets` their ratings (N, 6), and `sentences`
    embeddings of `sentences.HELD_OUT`. `acted` are sounds of people who act emotions.
    """

    texts: Mapping[str, Tensor]
    targets: NDArray[np.float32]
    sentences: Tensor
    faces: RatedFaces
    acted: Acted
    invented_faces: FaceWindows
    invented_voices: VoiceTakes


def all_scores(network: FusionNetwork, held: HeldOut) -> dict[str, float]:
    """The scores that stand in a checkpoint's header."""
    scores = dev_scores(network, held.texts, held.targets, at_rest(held.faces), held.acted.calm)
    scores |= face_scores(network, held.faces) | voice_scores(network, held.acted)
    scores |= sentence_scores(network, held.sentences, HELD_OUT)
    return scores | prototype_scores(network, held.invented_faces, held.invented_voices)


def infer(network: FusionNetwork, window: FusionInputs) -> NDArray[np.float32]:
    """Raw intensities (B, 6), some hundred windows at a time."""
    parts = []
    for start in range(0, window.batch, ROWS):
        part = FusionInputs(*(tensor[start : start + ROWS] for tensor in window.tensors()))
        with torch.inference_mode():
            parts.append(network(part).numpy())
    return np.concatenate(parts)


def with_face(window: FusionInputs, faces: FaceWindows, rows: NDArray[np.intp]) -> FusionInputs:
    """The windows with these faces in them."""
    return with_face_values(window, faces.values[rows], faces.mask[rows])


def with_face_values(
    window: FusionInputs, values: NDArray[np.float32], mask: NDArray[np.bool_]
) -> FusionInputs:
    """The windows with faces of these features (B, F, 58) in them."""
    return replace(
        window,
        vision=torch.from_numpy(values),
        vision_mask=torch.from_numpy(mask),
        vision_present=torch.ones(len(values), dtype=torch.bool),
    )


def with_voice(
    window: FusionInputs, values: NDArray[np.floating], mask: NDArray[np.bool_] | None = None
) -> FusionInputs:
    """The windows with these voices, (B, T, 73), in them; without a mask all frames count."""
    mask = np.ones(values.shape[:2], np.bool_) if mask is None else mask
    return replace(
        window,
        audio=torch.from_numpy(values.astype(np.float32)),
        audio_mask=torch.from_numpy(mask),
        audio_present=torch.ones(len(values), dtype=torch.bool),
    )


def windows_of(recordings: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The last window of each recording (T, 73): frames (B, 150, 73), packed to the front, and their mask."""
    values = np.zeros((len(recordings), SHAPES.audio_frames, SHAPES.audio_dim), np.float32)
    mask = np.zeros(values.shape[:2], np.bool_)
    for row, frames in enumerate(recordings):
        last = frames[-SHAPES.audio_frames :]
        values[row, : len(last)], mask[row, : len(last)] = last, True
    return values, mask


def auc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """How often a positive value is above a negative one, half for equal ones; NaN without one of them."""
    if not len(positive) or not len(negative):
        return float("nan")
    above = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(above)


def interval(
    statistic: Callable[[NDArray[np.intp]], Sequence[float]],
    draw: int | Callable[[np.random.Generator], NDArray[np.intp]],
) -> NDArray[np.float64]:
    """95 % percentile intervals of a bootstrap, (2, K).

    Args:
        statistic: K numbers of what stands in these rows; NaN is left out.
        draw: how many rows there are, each of which is drawn by itself; or what draws them (`Acted.drawer`).
    """
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(REPEATS):
        drawn.append(statistic(rng.integers(draw, size=draw) if isinstance(draw, int) else draw(rng)))
    found: NDArray[np.float64] = np.nanquantile(np.array(drawn, np.float64), TAILS, axis=0)
    return found


def spans(names: Sequence[str], found: NDArray[np.float64]) -> dict[str, float]:
    """Intervals (2, K) as scores: `NAME_low` and `NAME_high`."""
    return {
        f"{name}_{end}": round(float(value), 4)
        for end, values in zip(("low", "high"), found, strict=True)
        for name, value in zip(names, values, strict=True)
    }


def dev_scores(
    network: FusionNetwork,
    texts: Mapping[str, Tensor],
    targets: NDArray[np.float32],
    faces: NDArray[np.float32],
    voices: Sequence[NDArray[np.float32]],
) -> dict[str, float]:
    """Pearson's correlation with the ratings of `dev`, words alone and next to neutral faces and voices.

    Args:
        network: the network to score.
        texts: embeddings (N, 384) of the comments, by variant (as written, as spoken).
        targets: their ratings, (N, 6).
        faces: features (K, 58) of neutral faces.
        voices: frames (T, 73) of neutral recordings.
    """
    rng = np.random.default_rng(0)
    values, mask = windows_of(voices)
    scores: dict[str, float] = {}
    for name, text in texts.items():
        window = text_window(text)
        alone = infer(network, window)
        scores |= _named(f"dev_{name}", pearson(alone, targets))
        scores |= spans([f"dev_{name}_pearson_mean"], interval(partial(_mean_in, alone, targets), len(text)))
        parts = []
        for start in range(0, len(text), ROWS):
            part = text_window(text[start : start + ROWS])
            face = faces[rng.integers(len(faces), size=part.batch), None]
            part = with_face_values(part, face, np.ones((part.batch, 1), np.bool_))
            row = rng.integers(len(values), size=part.batch)
            parts.append(infer(network, with_voice(part, values[row], mask[row])))
        scores |= _named(f"dev_{name}_beside_neutral", pearson(np.concatenate(parts), targets))
    return scores


def _mean_in(
    answers: NDArray[np.float32], targets: NDArray[np.float32], rows: NDArray[np.intp]
) -> list[float]:
    """Mean correlation in some of the rows."""
    return [mean_pearson(answers[rows], targets[rows])]


def face_scores(network: FusionNetwork, faces: RatedFaces) -> dict[str, float]:
    """On rated faces: Pearson's correlation with the share of raters, and how far from rest others are.

    `neutral` and `anger`: mean of the faces that most raters called so, the farthest of the six from rest.
    """
    answers = infer(network, face_window(faces.values[:, None], np.ones((len(faces.values), 1), np.bool_)))
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    columns = [EMOTIONS.index(emotion) for emotion in RATED_AS]
    shares = np.stack([faces.share(vote) for vote in RATED_AS.values()], axis=1)
    names = [f"ferplus_{emotion}" for emotion in RATED_AS]

    def agree(rows: NDArray[np.intp]) -> list[float]:
        return [float(c) for c in pearson(answers[rows][:, columns], shares[rows])]

    found = agree(np.arange(len(answers)))
    scores = {name: round(r, 4) for name, r in zip(names, found, strict=True)}
    scores |= spans(names, interval(agree, len(answers)))
    for vote in ("neutral", "anger"):
        away = answers[faces.share(vote) >= MOST].mean(axis=0) - rest
        scores[f"ferplus_{vote}_from_rest"] = round(float(np.abs(away).max()), 4)
    return scores


def voice_scores(network: FusionNetwork, acted: Acted) -> dict[str, float]:
    """On acted emotions: areas under the curve, and joy of happiness above anger, each with its interval."""
    answers = infer(network, voice_window(*windows_of(acted.frames)))
    columns = [EMOTIONS.index(e) for e in ("joy", "empathic_pain", "excitement")]
    names = [f"emodb_{e}" for e in ("excitement_auc", "joy_auc", "empathic_pain_auc")]
    names.append("emodb_joy_happiness_above_anger")

    def agree(rows: NDArray[np.intp]) -> list[float]:
        (joy, pain, excitement), emotions = answers[rows][:, columns].T, acted.emotions[rows]
        happy, sad = emotions == "happiness", emotions == "sadness"
        return [
            auc(excitement[np.isin(emotions, AROUSED)], excitement[np.isin(emotions, CALM)]),
            auc(joy[happy], joy[~happy]),
            auc(pain[sad], pain[~sad]),
            _mean(joy[happy]) - _mean(joy[emotions == "anger"]),
        ]

    found = agree(np.arange(len(answers)))
    scores = {name: round(value, 4) for name, value in zip(names, found, strict=True)}
    return scores | spans(names, interval(agree, acted.drawer()))


def _mean(values: NDArray[np.floating]) -> float:
    """The mean; NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def sentence_scores(
    network: FusionNetwork, embeddings: Tensor, sentences: Sequence[Sentence]
) -> dict[str, float]:
    """The share of sentences on the right side of rest.

    An implied emotion must be more than 0.05 above rest, a denied one not more than 0.05 above it.
    """
    answers = infer(network, text_window(embeddings))
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    column = np.array([sentence.column for sentence in sentences])
    above = answers[np.arange(len(sentences)), column] - rest[column]
    shown = np.array([sentence.shown for sentence in sentences])
    right = np.where(shown, above > TOLERANCE, above <= TOLERANCE)
    right_bounds = interval(lambda rows: [float(right[rows].mean())], len(right))
    return {
        **spans(["sentences_right"], right_bounds),
        "sentences_right": round(float(right.mean()), 4),
        "sentences_denied_right": round(float(right[~shown].mean()), 4),
        "sentences_denied_below_rest": round(float((above <= 0)[~shown].mean()), 4),
        "sentences_implied_right": round(float(right[shown].mean()), 4),
    }


def prototype_scores(network: FusionNetwork, faces: FaceWindows, voices: VoiceTakes) -> dict[str, float]:
    """Pearson's correlation with the targets of synthetic faces and voices; no person rated them.

    A voice has fewer than six emotions; the others are left out of its mean.
    """
    answers = infer(network, face_window(faces.values, faces.mask))
    scores = _named("faces", pearson(answers, faces.shows))
    frames = SHAPES.audio_frames
    shows = np.stack([shown(sounds[:frames]) for sounds in voices.sounds])
    takes = [take.astype(np.float32)[:frames] for take in voices.values]
    heard = pearson(infer(network, voice_window(*windows_of(takes))), shows)
    return scores | _named("voices", np.where(shows.any(axis=0), heard, np.nan))


def _named(kind: str, correlations: NDArray[np.float64]) -> dict[str, float]:
    """The scores by name, rounded; NaN is left out."""
    known = {e: float(c) for e, c in zip(EMOTIONS, correlations, strict=True) if np.isfinite(c)}
    each = {f"{kind}_pearson_{emotion}": round(value, 4) for emotion, value in known.items()}
    return {f"{kind}_pearson_mean": round(sum(known.values()) / max(1, len(known)), 4), **each}
