"""Score a network: on words, faces and voices that people rated, and on displays that it has not seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models import EMOTIONS
from emi_models.inputs import FusionInputs
from recipes.compact.goemotions import pearson
from recipes.compact.hearing import AROUSED, CALM, voice_window
from recipes.compact.seeing import face_window
from recipes.compact.sizes import SHAPES
from recipes.compact.voices import shown
from recipes.compact.words import text_window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.base import FusionNetwork
    from recipes.compact.faces import FaceWindows
    from recipes.compact.ferplus import RatedFaces
    from recipes.compact.sentences import Sentence
    from recipes.compact.voices import VoiceTakes

__all__ = [
    "auc",
    "dev_scores",
    "face_scores",
    "infer",
    "plain_scores",
    "prototype_scores",
    "sentence_scores",
    "voice_scores",
    "windows_of",
    "with_face",
    "with_voice",
]

ROWS: Final = 256  # windows at a time
RATED_AS: Final = {"joy": "happiness", "empathic_pain": "sadness", "excitement": "surprise"}
MOST: Final = 0.6  # of the raters, who call a face neutral or angry
TOLERANCE: Final = 0.05


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
    return replace(
        window,
        vision=torch.from_numpy(faces.values[rows]),
        vision_mask=torch.from_numpy(faces.mask[rows]),
        vision_present=torch.ones(len(rows), dtype=torch.bool),
    )


def with_voice(
    window: FusionInputs, values: NDArray[np.floating], mask: NDArray[np.bool_] | None = None
) -> FusionInputs:
    """The windows with these voices, (B, T, 68), in them; without a mask all frames count."""
    mask = np.ones(values.shape[:2], np.bool_) if mask is None else mask
    return replace(
        window,
        audio=torch.from_numpy(values.astype(np.float32)),
        audio_mask=torch.from_numpy(mask),
        audio_present=torch.ones(len(values), dtype=torch.bool),
    )


def windows_of(recordings: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The last window of each recording (T, 68): frames (B, 150, 68), packed to the front, and their mask."""
    values = np.zeros((len(recordings), SHAPES.audio_frames, SHAPES.audio_dim), np.float32)
    mask = np.zeros(values.shape[:2], np.bool_)
    for row, frames in enumerate(recordings):
        last = frames[-SHAPES.audio_frames :]
        values[row, : len(last)], mask[row, : len(last)] = last, True
    return values, mask


def auc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """How often a positive value is above a negative one, half for equal ones."""
    above = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(above)


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
        voices: frames (T, 68) of neutral recordings.
    """
    rng = np.random.default_rng(0)
    values, mask = windows_of(voices)
    scores: dict[str, float] = {}
    for name, text in texts.items():
        window = text_window(text)
        scores |= _named(f"dev_{name}", pearson(infer(network, window), targets))
        parts = []
        for start in range(0, len(text), ROWS):
            part = text_window(text[start : start + ROWS])
            face = faces[rng.integers(len(faces), size=part.batch), None]
            part = replace(
                part,
                vision=torch.from_numpy(face),
                vision_mask=torch.ones(part.batch, 1, dtype=torch.bool),
                vision_present=torch.ones(part.batch, dtype=torch.bool),
            )
            row = rng.integers(len(values), size=part.batch)
            parts.append(infer(network, with_voice(part, values[row], mask[row])))
        scores |= _named(f"dev_{name}_beside_neutral", pearson(np.concatenate(parts), targets))
    return scores


def face_scores(network: FusionNetwork, faces: RatedFaces) -> dict[str, float]:
    """On rated faces: Pearson's correlation with the share of raters, and how far from rest others are.

    `neutral` and `anger`: mean of the faces that most raters called so, the farthest of the six from rest.
    """
    answers = infer(network, face_window(faces.values[:, None], np.ones((len(faces.values), 1), np.bool_)))
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    scores = {}
    for emotion, vote in RATED_AS.items():
        both = np.corrcoef(answers[:, EMOTIONS.index(emotion)], faces.share(vote))
        scores[f"ferplus_{emotion}"] = round(float(both[0, 1]), 4)
    for vote in ("neutral", "anger"):
        away = answers[faces.share(vote) >= MOST].mean(axis=0) - rest
        scores[f"ferplus_{vote}_from_rest"] = round(float(np.abs(away).max()), 4)
    return scores


def voice_scores(
    network: FusionNetwork, recordings: Sequence[NDArray[np.float32]], emotions: NDArray[np.str_]
) -> dict[str, float]:
    """On recordings (T, 68) of acted emotions: areas under the curve, and joy of happiness above anger."""
    answers = infer(network, voice_window(*windows_of(recordings)))
    joy, pain, excitement = (answers[:, EMOTIONS.index(e)] for e in ("joy", "empathic_pain", "excitement"))
    happy, sad = emotions == "happiness", emotions == "sadness"
    return {
        "emodb_excitement_auc": round(
            auc(excitement[np.isin(emotions, AROUSED)], excitement[np.isin(emotions, CALM)]), 4
        ),
        "emodb_joy_auc": round(auc(joy[happy], joy[~happy]), 4),
        "emodb_empathic_pain_auc": round(auc(pain[sad], pain[~sad]), 4),
        "emodb_joy_happiness_above_anger": round(
            float(joy[happy].mean() - joy[emotions == "anger"].mean()), 4
        ),
    }


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
    return {
        "sentences_right": round(float(right.mean()), 4),
        "sentences_denied_right": round(float(right[~shown].mean()), 4),
        "sentences_denied_below_rest": round(float((above <= 0)[~shown].mean()), 4),
        "sentences_implied_right": round(float(right[shown].mean()), 4),
    }


def plain_scores(network: FusionNetwork, comments: Tensor, sentences: Tensor) -> dict[str, float]:
    """The median of the largest of six steps that plain words make when they come or go.

    Args:
        network: the network to score.
        comments: embeddings (N, 384) of comments that show none of the six.
        sentences: the same of plain sentences of our own.
    """
    rest = infer(network, FusionInputs.empty(SHAPES))[0]
    return {
        f"step_of_plain_{name}": round(
            float(np.median(np.abs(infer(network, text_window(text)) - rest).max(axis=1))), 4
        )
        for name, text in (("comments", comments), ("sentences", sentences))
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
