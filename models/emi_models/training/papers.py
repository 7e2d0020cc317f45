"""The recipe of each system: the settings that its paper gives; what the paper leaves open is chosen here.

- TAEMI: one stage, as in the paper's §3.5 and §4.1 (arXiv:2603.14976v1).
- The two-stage framework (MimicMetrics): each branch alone under its own head, then their fusion (§4.6-4.8).
  Two faults of the published training are not repeated: there the motion encoder stood still in stage two,
  and encoders stayed as they were at the last epoch while the fusion went back to its best. A clip that lacks
  a modality takes no part in that branch's stage.
- The dual-stage network (USTC): contrastive alignment with words, then regression with what was aligned
  frozen: encoders and projections, or projections alone where features are stored. Source: "Dual-Stage
  Cross-Modal Network with Dynamic Feature Fusion for Emotional Mimicry Intensity Estimation" §3.3, §3.6 and
  §4.3 (arXiv:2503.10603v1). Chosen here: AdamW, the batch size, and stage II's rate, schedule and patience.
  The contrastive loss is symmetric, as CLIP's; Eq. 1 writes one direction. The averaged weights start with
  a short memory (`emi_models.training.task`), else a small set would be scored by weights close to the
  start's.
- Semantic Matters: one stage (§3.1), its multi-task variant (§4.1.2), and ambivalence and hesitancy (§3.2).
  The paper names no optimiser beyond its rate; AdamW with its usual decay is chosen here. It trains all
  epochs and keeps the best.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import nn

from emi_models import MODALITIES
from emi_models.data.batches import motion_dim_of, task_of
from emi_models.errors import TrainingError
from emi_models.training.recipe import (
    Classification,
    Clipping,
    Cosine,
    Group,
    Measure,
    Objective,
    Outcome,
    Plateau,
    Recipe,
    Regression,
    Restarts,
    TrainingStage,
    concordance_loss,
    cross_entropy,
    squared_error,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionInputs
    from emi_models.networks.dual_stage import DualStage, DualStageConfig
    from emi_models.networks.semantic_matters import SemanticMatters, SemanticMattersConfig
    from emi_models.networks.taemi import TaemiConfig
    from emi_models.networks.two_stage import TwoStage, TwoStageConfig

__all__ = [
    "RECIPES",
    "Alignment",
    "Branch",
    "FrozenAlignment",
    "Fusion",
    "MultiTask",
    "MultiTaskClassification",
    "contrastive_loss",
    "mixed_loss",
    "recipe_of",
]

ENCODER_RATE: Final = 0.05  # of the fusion's learning rate, for encoders that are trained already
CONCORDANCE_SHARE: Final = 0.7  # of the loss; the rest is squared error
LARGEST_SCALE: Final = math.log(100.0)  # of the logits, in logarithm; as CLIP's, which diverges beyond


# The paper clips "with a threshold of 100.0" and does not say what; the authors' own training limits values.
_TAEMI_STAGE: Final = TrainingStage(
    name="fusion",
    objective=Regression,
    schedule=Cosine(warm_up=1),
    epochs=50,
    patience=5,
    batch_size=32,
    learning_rate=1e-4,
    weight_decay=0.01,
    clipping=Clipping(100.0, "value"),
)


def _taemi_stages(config: TaemiConfig) -> tuple[TrainingStage, ...]:
    return (_TAEMI_STAGE,)


def _taemi_missing(config: TaemiConfig) -> str:
    stand_in = "its learned token" if config.missing == "token" else "zeros"
    dropped = f"dropped at random in training, p = {config.modality_dropout}"
    never = "no modality is dropped in training"
    return f"{stand_in} in place of an absent modality; {dropped if config.modality_dropout else never}"


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
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(width, config.outputs))

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Predictions from this branch alone; rows in which it is absent do not count."""
        predicted = self.head(self.network.encode(window, self.name)[self.name])
        counts = self.network.presence(window)[self.name]
        return Outcome(mixed_loss(predicted, targets, counts), predicted, counts)

    def encodes(self) -> tuple[Modality, ...]:
        """The branch's own modality; motion is measured, not encoded."""
        return tuple(m for m in MODALITIES if m == self.name)

    def groups(self) -> Sequence[Group]:
        """The branch's encoder and the head."""
        return [Group([*self.network.branch_parameters(self.name), *self.head.parameters()])]


class Fusion(Objective):
    """The fusion regressor, and every encoder at a twentieth of its rate."""

    encoder_rate = ENCODER_RATE
    network: TwoStage

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Predictions of the network (B, K) and their mixed loss."""
        predicted = self.network(window)
        return Outcome(mixed_loss(predicted, targets), predicted)

    def groups(self) -> Sequence[Group]:
        """The fusion at the full rate, all branches at the stage's `encoder_rate`, motion's too."""
        encoders = [p for name in self.network.branches for p in self.network.branch_parameters(name)]
        return [Group(list(self.network.fusion_parameters())), Group(encoders, encoders=True)]


def _two_stage_stage(name: str, objective: type[Fusion] | None = None, epochs: int = 50) -> TrainingStage:
    return TrainingStage(
        name=name,
        objective=objective or partial(Branch, name=name),
        schedule=Plateau(by=0.5, patience=3),
        epochs=epochs,
        patience=10,
        batch_size=16,
        learning_rate=2e-4,
        weight_decay=1e-2,
        clipping=Clipping(1.0, "norm"),
        margin=1e-4,
        encoder_rate=ENCODER_RATE,
    )


def _two_stage_stages(config: TwoStageConfig) -> tuple[TrainingStage, ...]:
    alone = [_two_stage_stage(name, epochs=100 if name == "motion" else 50) for name in config.branches]
    return (*alone, _two_stage_stage("fusion", Fusion))


def _two_stage_missing(config: TwoStageConfig) -> str:
    trained = f"branches dropped at random in training, p = {config.modality_dropout}, at least one kept"
    return f"zeros in place of an absent branch's encoding; {trained}"


def _two_stage_network(clips: ClipSet) -> Mapping[str, object]:
    """Motion next to faces, or alone. Our own face stage gives nothing but what the paper calls motion."""
    if motion := motion_dim_of(clips):
        return {"motion_dim": motion, "motion_mask": motion < clips.shapes.vision_dim}
    face = clips.encoders.get("vision", "").startswith("mediapipe/face_landmarker")
    return {"motion_dim": clips.shapes.vision_dim} if face else {}


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
    """Stage I: the projections of faces and of voices each find the words that belong to them.

    With `--train-encoders` the encoders learn it too, as in the paper's §3.3: then the projections are what
    CLIP has behind its encoders. Without, features are stored and only the projections learn.
    """

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


class FrozenEncoders(Regression):
    """Stage II where there was no stage I: the whole network, on encoders as they are."""

    encoder_rate = 0.0


class FrozenAlignment(FrozenEncoders):
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


def _dual_stage_fusion(objective: type[Regression]) -> TrainingStage:
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


def _dual_stage_stages(config: DualStageConfig) -> tuple[TrainingStage, ...]:
    if len(config.aligned) > 1 and "text" in config.aligned:
        return _ALIGN, _dual_stage_fusion(FrozenAlignment)
    return (_dual_stage_fusion(FrozenEncoders),)  # words, or what belongs to them, are not there to align


def _dual_stage_missing(config: DualStageConfig) -> str:
    return (
        "an absent modality has weight 0 and the others share it; a learned vector where all are absent; "
        "no modality is dropped in training"
    )


class MultiTask(Objective):
    """Each modality predicts for itself, at its own learned uncertainty; their weighted sum is what counts.

    Kendall, Gal & Cipolla 2018: half of error / variance + log variance, for each modality over the rows that
    have it. As in the paper (§4.1.2) the fused prediction has no loss of its own: uncertainties alone make
    its weights.
    """

    network: SemanticMatters

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """The fused prediction (B, outputs), and the losses of each modality's."""
        each, present = self.network.each(window), self.network.presence(window)
        fused = (self.network.weights(window)[:, :, None] * each).sum(dim=1)
        errors = torch.stack(
            [self.error(each[:, m], targets, present[:, m]) for m in range(present.shape[1])]
        )
        doubt = self.network.log_variance
        tasks = 0.5 * (errors * torch.exp(-doubt) + doubt)
        seen = present.any(dim=0)  # a modality that this batch lacks says nothing of its uncertainty
        return Outcome(torch.where(seen, tasks, 0.0).sum(), fused)

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


def _semantic_matters_stages(config: SemanticMattersConfig) -> tuple[TrainingStage, ...]:
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


def _semantic_matters_missing(config: SemanticMattersConfig) -> str:
    if config.fusion == "multitask":
        return "an absent modality's prediction has no part in the sum; zeros if all are absent"
    return "zeros in place of an absent modality's vector; no modality is dropped in training"


def _semantic_matters_network(clips: ClipSet) -> Mapping[str, object]:
    """The task is that of the clips."""
    return {"task": task} if (task := task_of(clips)) != "emi" else {}


RECIPES: Final[Mapping[str, Recipe]] = {
    "taemi": Recipe(stages=_taemi_stages, missing=_taemi_missing),
    "two_stage": Recipe(stages=_two_stage_stages, missing=_two_stage_missing, network=_two_stage_network),
    "dual_stage": Recipe(stages=_dual_stage_stages, missing=_dual_stage_missing),
    "semantic_matters": Recipe(
        stages=_semantic_matters_stages, missing=_semantic_matters_missing, network=_semantic_matters_network
    ),
}


def recipe_of(system: str) -> Recipe:
    """How a system is trained.

    Raises:
        TrainingError: there is no such system; the message lists those that there are.
    """
    if system not in RECIPES:
        raise TrainingError(f"no system is called {system!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[system]
