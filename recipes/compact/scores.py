"""Score a network: on words that people rated, and on displays that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from emi_models import EMOTIONS
from emi_models.inputs import FusionInputs
from recipes.compact.goemotions import pearson
from recipes.compact.sizes import SHAPES
from recipes.compact.voices import shown
from recipes.compact.words import text_window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.base import FusionNetwork
    from recipes.compact.faces import FaceWindows
    from recipes.compact.voices import VoiceTakes

__all__ = ["dev_scores", "infer", "prototype_scores", "with_face", "with_voice"]

ROWS: Final = 256  # windows at a time


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


def with_voice(window: FusionInputs, values: NDArray[np.float16]) -> FusionInputs:
    """The windows with these voices, (B, T, 68), in them."""
    return replace(
        window,
        audio=torch.from_numpy(values.astype(np.float32)),
        audio_mask=torch.ones(values.shape[:2], dtype=torch.bool),
        audio_present=torch.ones(len(values), dtype=torch.bool),
    )


def dev_scores(
    network: FusionNetwork,
    texts: Mapping[str, Tensor],
    targets: NDArray[np.float32],
    faces: FaceWindows,
    voices: VoiceTakes,
) -> dict[str, float]:
    """Pearson's correlation with the ratings of `dev`, words alone and with neutral faces and voices.

    Args:
        network: the network to score.
        texts: embeddings (N, 384) of the comments, by variant (as written, as spoken).
        targets: their ratings, (N, 6).
        faces: windows, of which the neutral ones are used.
        voices: takes, likewise; their first three seconds.
    """
    rng = np.random.default_rng(0)
    neutral_faces = np.flatnonzero(~faces.shows.any(axis=1))
    neutral_voices = np.flatnonzero(~voices.sounds.any(axis=(1, 2)))
    scores: dict[str, float] = {}
    for name, text in texts.items():
        window = text_window(text)
        scores |= _named(f"dev_{name}", pearson(infer(network, window), targets))
        window = with_face(window, faces, rng.choice(neutral_faces, len(text)))
        takes = rng.choice(neutral_voices, len(text))
        window = with_voice(window, voices.values[takes, : SHAPES.audio_frames])
        scores |= _named(f"dev_{name}_beside_neutral", pearson(infer(network, window), targets))
    return scores


def prototype_scores(network: FusionNetwork, faces: FaceWindows, voices: VoiceTakes) -> dict[str, float]:
    """Pearson's correlation with the targets of synthetic faces and voices; no person rated them.

    A voice has fewer than six emotions; the others are left out of its mean.
    """
    empty = FusionInputs.empty(SHAPES)
    nothing = FusionInputs(*(t.expand(len(faces.values), *t.shape[1:]) for t in empty.tensors()))
    rows = np.arange(len(faces.values))
    scores = _named("faces", pearson(infer(network, with_face(nothing, faces, rows)), faces.shows))
    frames = SHAPES.audio_frames
    nothing = FusionInputs(*(t.expand(len(voices.values), *t.shape[1:]) for t in empty.tensors()))
    shows = np.stack([shown(sounds[:frames]) for sounds in voices.sounds])
    heard = pearson(infer(network, with_voice(nothing, voices.values[:, :frames])), shows)
    return scores | _named("voices", np.where(shows.any(axis=0), heard, np.nan))


def _named(kind: str, correlations: NDArray[np.float64]) -> dict[str, float]:
    """The scores by name, rounded; NaN is left out."""
    known = {e: float(c) for e, c in zip(EMOTIONS, correlations, strict=True) if np.isfinite(c)}
    each = {f"{kind}_pearson_{emotion}": round(value, 4) for emotion, value in known.items()}
    return {f"{kind}_pearson_mean": round(sum(known.values()) / max(1, len(known)), 4), **each}
