"""How good predictions are: the field's measures by torchmetrics, with what they leave open decided here.

A column that does not vary, in the predictions or in the ratings, has no correlation: it counts 0, so that a
network gains nothing by an emotion about which it has learned nothing. All is computed in float64, over all
clips at once: no score depends on how clips were batched.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torchmetrics.functional.classification import multiclass_f1_score
from torchmetrics.functional.regression import concordance_corrcoef, mean_squared_error, pearson_corrcoef

from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["concordance", "mean_squared", "pearson", "score", "weighted_f1"]


def pearson(predicted: Tensor, truth: Tensor) -> Tensor:
    """Pearson's correlation of each column, (K,) float64, from (N, K) each; 0 where one does not vary."""
    return _agreement(pearson_corrcoef, predicted, truth)


def concordance(predicted: Tensor, truth: Tensor) -> Tensor:
    """Lin's concordance of each column, (K,) float64, from (N, K) each; 0 where one does not vary."""
    return _agreement(concordance_corrcoef, predicted, truth)


def mean_squared(predicted: Tensor, truth: Tensor) -> Tensor:
    """The mean squared error of each column, (K,) float64, from (N, K) each, N at least 1."""
    error: Tensor = mean_squared_error(predicted.double(), truth.double(), num_outputs=truth.shape[1])
    return error.reshape(-1)


def weighted_f1(logits: Tensor, truth: Tensor) -> Tensor:
    """F1 of both answers, weighed by how often each is true: (1,) float64, from (N, 1) each, truth 0 or 1."""
    answer, true = (logits > 0).long().flatten(), (truth > 0.5).long().flatten()
    score: Tensor = multiclass_f1_score(answer, true, num_classes=2, average="weighted")
    return score.double().reshape(1)


def score(measure: str, predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """What a validation is judged by, as `score`, with the parts that it is the mean of."""
    if measure == "weighted_f1":
        return {"score": float(weighted_f1(predicted, truth))}
    each = pearson(predicted, truth)
    parts = {f"pearson_{emotion}": float(rho) for emotion, rho in zip(EMOTIONS, each, strict=True)}
    return {"score": float(each.mean()), **parts}


def _agreement(measure: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, truth: Tensor) -> Tensor:
    if len(truth) < 2:
        return torch.zeros(truth.shape[1], dtype=torch.float64)
    with warnings.catch_warnings():
        # A column that does not vary: torchmetrics says so in a warning and answers NaN.
        warnings.filterwarnings("ignore", message="The variance of predictions or target is close to zero")
        agreement = measure(predicted.double(), truth.double())
    return agreement.reshape(-1).nan_to_num(nan=0.0)
