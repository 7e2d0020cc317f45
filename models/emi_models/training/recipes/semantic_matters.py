"""Semantic Matters: one stage (§3.1), its multi-task variant (§4.1.2), and ambivalence and hesitancy (§3.2).

The paper names no optimiser beyond its rate; AdamW with its usual decay is chosen here. It trains all epochs
and keeps the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from emi_models.training.recipes.objectives import (
    Classification,
    Objective,
    Outcome,
    Regression,
    cross_entropy,
    squared_error,
)
from emi_models.training.recipes.recipe import Cosine, Recipe, TrainingStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionInputs
    from emi_models.networks.semantic_matters import SemanticMatters, SemanticMattersConfig

__all__ = ["RECIPE", "MultiTask", "MultiTaskClassification"]


class MultiTask(Objective):
    """Each modality predicts for itself, at its own learned uncertainty, and so does their weighted sum.

    Kendall, Gal & Cipolla 2018: half of error / variance + log variance, for each modality over the rows that
    have it. The fused prediction's own error is added, since it is what is used.
    """

    network: SemanticMatters

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """The fused prediction (B, outputs), and the losses of it and of each modality's."""
        each, present = self.network.each(window), self.network.presence(window)
        fused = (self.network.weights(window)[:, :, None] * each).sum(dim=1)
        errors = torch.stack(
            [self.error(each[:, m], targets, present[:, m]) for m in range(present.shape[1])]
        )
        doubt = self.network.log_variance
        tasks = 0.5 * (errors * torch.exp(-doubt) + doubt)
        seen = present.any(dim=0)  # a modality that this batch lacks says nothing of its uncertainty
        return Outcome(torch.where(seen, tasks, 0.0).sum() + self.error(fused, targets), fused)

    @staticmethod
    def error(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
        """The loss of one prediction over the rows that count."""
        return squared_error(predicted, targets, counts)


class MultiTaskClassification(MultiTask):
    """The same for one logit."""

    measure = Classification.measure

    @staticmethod
    def error(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
        """Binary cross-entropy over the rows that count."""
        return cross_entropy(predicted, targets, counts)


_OBJECTIVES: Final[dict[tuple[str, str], type[Objective]]] = {
    ("emi", "joint"): Regression,
    ("emi", "multitask"): MultiTask,
    ("bah", "joint"): Classification,
    ("bah", "multitask"): MultiTaskClassification,
}


def _stages(config: SemanticMattersConfig) -> tuple[TrainingStage, ...]:
    bah = config.task == "bah"
    epochs = 10 if bah else 30
    stage = TrainingStage(
        name="fusion",
        objective=_OBJECTIVES[config.task, config.fusion],
        schedule=Cosine(),
        epochs=epochs,
        patience=epochs,
        batch_size=32,
        learning_rate=7.5e-6 if bah else 1e-4,
        weight_decay=0.01,
    )
    return (stage,)


def _missing(config: SemanticMattersConfig) -> str:
    if config.fusion == "multitask":
        return "an absent modality's prediction has no part in the sum; zeros if all are absent"
    return "zeros in place of an absent modality's vector; no modality is dropped in training"


def _network(clips: ClipSet) -> Mapping[str, object]:
    """Clips with one rating each are BAH's."""
    return {"task": "bah"} if clips.targets("train").shape[1] == 1 else {}


RECIPE: Final = Recipe(stages=_stages, missing=_missing, network=_network)
