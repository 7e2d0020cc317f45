"""Statistics of a set of clips, as the papers publish them for Hume-Vidmimic2.

Each function returns the rows of one table by name; a row maps columns to values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from emi_models import EMOTIONS
from emi_models.data.batches import rated_part
from emi_models.data.clip import SPLITS, ClipSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from emi_models import Modality

__all__ = ["STATISTICS", "kolmogorov_smirnov", "labels", "partitions", "shift"]


class Described(ClipSet, Protocol):
    """A `ClipSet` that knows how long its clips are without reading their features."""

    def durations_s(self, split: str) -> Sequence[float]:
        """Seconds that each clip of `ids(split)` lasts."""

    def frames(self, modality: Modality, clip_id: str) -> int:
        """How many frames of a modality the whole clip has."""


def partitions(clips: Described) -> dict[str, dict[str, float]]:
    """Clips and seconds, for each split and in total."""
    rows = {
        split: {"hours": float(sum(clips.durations_s(split))), "samples": float(len(clips.ids(split)))}
        for split in SPLITS
    }
    total = {name: sum(row[name] for row in rows.values()) for name in ("hours", "samples")}
    return {**rows, "sum": total}


def labels(clips: Described) -> dict[str, dict[str, float]]:
    """Clips, faces per clip, and mean ratings, for train and valid."""
    rows = {}
    for split in ("train", "valid"):
        ids, targets = clips.ids(split), rated_part(clips, split)[1]
        frames = np.array([clips.frames("vision", clip_id) for clip_id in ids], np.float64)
        row = {"samples": float(len(ids))}
        if len(frames):
            row |= {"frames_mean": float(frames.mean()), "frames_std": float(frames.std())}
            row |= {"frames_min": float(frames.min()), "frames_max": float(frames.max())}
        if len(targets):
            row |= dict(zip(EMOTIONS, targets.mean(axis=0, dtype=np.float64).tolist(), strict=True))
        rows[split] = row
    return rows


def shift(clips: Described) -> dict[str, dict[str, float]]:
    """For each emotion: % of ratings that are 0 in train and valid, and how their distributions differ."""
    train, valid = rated_part(clips, "train")[1], rated_part(clips, "valid")[1]
    rows: dict[str, dict[str, float]] = {emotion: {} for emotion in EMOTIONS}
    if not len(train) or not len(valid):
        return rows
    for column, emotion in enumerate(EMOTIONS):
        one, other = train[:, column], valid[:, column]
        ks, p = kolmogorov_smirnov(one, other)
        zeros = {"zero_train": 100 * float((one == 0).mean()), "zero_valid": 100 * float((other == 0).mean())}
        rows[emotion] = {**zeros, "ks": ks, "p": p}
    return rows


def kolmogorov_smirnov(one: NDArray[np.floating], other: NDArray[np.floating]) -> tuple[float, float]:
    """The two-sample statistic and its p-value from Kolmogorov's limit, which needs hundreds of values.

    Source: Smirnov 1939; p = 2 sum over k of (-1)^(k-1) exp(-2 k² n D²), n = n1 n2 / (n1 + n2).
    """
    one, other = np.sort(one), np.sort(other)
    both = np.concatenate([one, other])
    shares = [np.searchsorted(each, both, side="right") / len(each) for each in (one, other)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    n = len(one) * len(other) / (len(one) + len(other))
    k = np.arange(1, 101)
    p = 2 * float(((-1.0) ** (k - 1) * np.exp(-2 * k**2 * n * statistic**2)).sum())
    return statistic, min(1.0, max(0.0, p)) if statistic > 0 else 1.0


STATISTICS: Final[Mapping[str, Callable[[Described], dict[str, dict[str, float]]]]] = {
    "partitions": partitions,
    "labels": labels,
    "shift": shift,
}
