"""The two-stage framework (MimicMetrics): each branch alone under its own head, then their fusion (§4.6-4.8).

Two faults of the published training are not repeated: there the motion encoder stood still in stage two, and
encoders stayed as they were at the last epoch while the fusion went back to its best. A clip that lacks a
modality takes no part in that branch's stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import nn

from emi_models import EMOTIONS
from emi_models.training.recipes.objectives import (
    Group,
    Objective,
    Outcome,
    concordance_loss,
    squared_error,
)
from emi_models.training.recipes.recipe import Clipping, Plateau, Recipe, TrainingStage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionInputs
    from emi_models.networks.two_stage import TwoStage, TwoStageConfig

__all__ = ["RECIPE", "Branch", "Fusion", "mixed_loss"]

ENCODER_RATE: Final = 0.05  # of the fusion's learning rate, for encoders that are trained already
CONCORDANCE_SHARE: Final = 0.7  # of the loss; the rest is squared error


def mixed_loss(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """0.7 (1 - CCC) + 0.3 MSE of the rows that count."""
    concordance = concordance_loss(predicted, targets, counts)
    return CONCORDANCE_SHARE * concordance + (1 - CONCORDANCE_SHARE) * squared_error(
        predicted, targets, counts
    )


class Branch(Objective):
    """One branch's encoder under a head that is thrown away after the stage."""

    network: TwoStage

    def __init__(self, network: TwoStage, name: str) -> None:
        super().__init__(network)
        config = network.config
        self.name = name
        width = config.motion_hidden if name == "motion" else config.hidden
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(width, len(EMOTIONS)))

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Predictions from this branch alone; rows in which it is absent do not count."""
        predicted = self.head(self.network.encode(window, self.name)[self.name])
        counts = self.network.presence(window)[self.name]
        return Outcome(mixed_loss(predicted, targets, counts), predicted, counts)

    def groups(self) -> Sequence[Group]:
        """The branch's encoder and the head."""
        return [Group([*self.network.branch_parameters(self.name), *self.head.parameters()])]


class Fusion(Objective):
    """The fusion regressor, and every encoder at a twentieth of its rate."""

    network: TwoStage

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Predictions of the network (B, 6) and their mixed loss."""
        predicted = self.network(window)
        return Outcome(mixed_loss(predicted, targets), predicted)

    def groups(self) -> Sequence[Group]:
        """The fusion at the full rate, all branches at `ENCODER_RATE`, motion's too."""
        encoders = [p for name in self.network.branches for p in self.network.branch_parameters(name)]
        return [Group(list(self.network.fusion_parameters())), Group(encoders, ENCODER_RATE)]


def _stage(name: str, objective: type[Fusion] | None = None, epochs: int = 50) -> TrainingStage:
    return TrainingStage(
        name=name,
        objective=objective or (lambda network: Branch(network, name)),
        schedule=Plateau(by=0.5, patience=3),
        epochs=epochs,
        patience=10,
        batch_size=16,
        learning_rate=2e-4,
        weight_decay=1e-2,
        clipping=Clipping(1.0, "norm"),
        margin=1e-4,
    )


def _stages(config: TwoStageConfig) -> tuple[TrainingStage, ...]:
    alone = [_stage(name, epochs=100 if name == "motion" else 50) for name in config.branches]
    return (*alone, _stage("fusion", Fusion))


def _missing(config: TwoStageConfig) -> str:
    trained = f"branches dropped at random in training, p = {config.modality_dropout}, at least one kept"
    return f"zeros in place of an absent branch's encoding; {trained}"


def _network(clips: ClipSet) -> Mapping[str, object]:
    """Our own face stage gives blendshapes and pose: all of it is what the paper calls motion."""
    face = clips.encoders.get("vision", "").startswith("mediapipe/face_landmarker")
    return {"motion_dim": clips.shapes.vision_dim} if face else {}


RECIPE: Final = Recipe(stages=_stages, missing=_missing, network=_network)
