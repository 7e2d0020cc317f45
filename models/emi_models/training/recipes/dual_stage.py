"""The dual-stage network (USTC): contrastive alignment with words, then regression on what that froze.

Source: "Dual-Stage Cross-Modal Network with Dynamic Feature Fusion for Emotional Mimicry Intensity
Estimation" §3.6 and §4.3. What it does not give is chosen here: AdamW, the batch size, and stage II's rate,
schedule and patience. The contrastive loss is symmetric, as CLIP's; Eq. 1 writes one direction. The averaged
weights start with a short memory (`emi_models.training.task`), else a small set would be scored by weights
that are close to the start's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Final

import torch
import torch.nn.functional as F

from emi_models.training.recipes.objectives import Group, Measure, Objective, Outcome, Regression
from emi_models.training.recipes.recipe import Cosine, Recipe, Restarts, TrainingStage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from emi_models.inputs import FusionInputs
    from emi_models.networks.dual_stage import DualStage, DualStageConfig

__all__ = ["RECIPE", "Alignment", "FrozenAlignment", "contrastive_loss"]

LARGEST_SCALE: Final = math.log(100.0)  # of the logits, in logarithm; as CLIP's, which diverges beyond


def contrastive_loss(one: Tensor, other: Tensor, pairs: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit vectors (B, E), row by row a pair where `pairs` (B,) is True.

    Rows that are no pair are no negatives. 0 with fewer than two pairs.
    """
    logits = scale * one[pairs].float() @ other[pairs].float().T  # (P, P)
    if not len(logits):
        return logits.sum()  # 0, with a gradient of 0
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


class Alignment(Objective):
    """Stage I: the projections of faces and of voices each find the words that belong to them."""

    measure: ClassVar[Measure] = "loss"
    network: DualStage

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """The two contrastive losses' sum; nothing is predicted."""
        aligned = self.network.align(window)
        scale = self.network.logit_scale.clamp(max=LARGEST_SCALE).exp()
        faces = contrastive_loss(aligned.vision, aligned.text, aligned.vision_pairs, scale)
        voices = contrastive_loss(aligned.audio, aligned.text, aligned.audio_pairs, scale)
        return Outcome(faces + voices)

    def groups(self) -> Sequence[Group]:
        """The projections and the temperature."""
        return [Group(list(self.network.alignment_parameters()))]


class FrozenAlignment(Regression):
    """Stage II: everything but what stage I has aligned."""

    network: DualStage

    def groups(self) -> Sequence[Group]:
        """All parameters that stage I did not train."""
        return [Group(list(self.network.fusion_parameters()))]


_ALIGN: Final = TrainingStage(
    name="align",
    objective=Alignment,
    schedule=Restarts(cycle=10, floor=1e-7 / 1e-5),
    epochs=50,
    patience=50,
    batch_size=32,
    learning_rate=1e-5,
    weight_decay=0.01,
)


def _fusion(objective: type[Regression]) -> TrainingStage:
    return TrainingStage(
        name="fusion",
        objective=objective,
        schedule=Cosine(),
        epochs=50,
        patience=10,
        batch_size=32,
        learning_rate=1e-4,
        weight_decay=0.01,
        average=0.999,
    )


def _stages(config: DualStageConfig) -> tuple[TrainingStage, ...]:
    if "text" in config.modalities and len(config.modalities) > 1:
        return _ALIGN, _fusion(FrozenAlignment)
    return (_fusion(Regression),)  # without words with a face or a voice there is nothing to align


def _missing(config: DualStageConfig) -> str:
    return (
        "an absent modality has weight 0 and the others share it; a learned vector where all are absent; "
        "no modality is dropped in training"
    )


RECIPE: Final = Recipe(stages=_stages, missing=_missing)
