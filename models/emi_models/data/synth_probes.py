"""What a linear reader gets out of a synthetic corpus: how its modalities' strengths are set and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from emi_models.data.clip import WINDOW_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models import Modality
    from emi_models.data.clip import FeatureTrack
    from emi_models.data.synth import SynthCorpus, Truth

__all__ = ["Pooling", "probe"]

Pooling = Literal["mean", "marked", "salient"]
NS_PER_S: Final = 1_000_000_000
RIDGE: Final = 1.0  # on standardised features


def probe(corpus: SynthCorpus, modality: Modality, pooling: Pooling = "mean") -> NDArray[np.float64]:
    """Pearson correlations (6,) on `valid` of a ridge regression on `train`, one modality alone.

    Args:
        corpus: the clips.
        modality: the one that is read; clips that lack it count as zeros.
        pooling: which frames of a clip's first 12 s are averaged: all of them (`mean`); those that bear the
            clip's topic, as an anchor that knows the topic could find them (`marked`); those that show the
            clip's emotions, as only the truth knows (`salient`).
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
