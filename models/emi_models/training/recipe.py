"""How a system is trained, as data: stages, what each stage learns, and learning rates over a stage.

An `Objective` is a network, what is trained of it, a loss, and what validation scores. Losses weigh rows by
whether they count, so that clips which lack a modality take no part in what only that modality can learn, and
a batch in which none counts is no special case.

Each schedule gives the share of the stage's own learning rate at an optimiser step. `emi_models.training.fit`
carries a recipe out; `emi_models.training.papers` has the recipe of each system.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from emi_models import MODALITIES
from emi_models.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from emi_models import Modality
    from emi_models.data.clip import ClipSet
    from emi_models.inputs import FusionInputs
    from emi_models.networks.base import FusionNetwork
    from emi_models.training.config import TrainingSettings

__all__ = [
    "Classification",
    "Clipping",
    "Constant",
    "Cosine",
    "Group",
    "Measure",
    "Objective",
    "Outcome",
    "Plateau",
    "Recipe",
    "Regression",
    "Restarts",
    "Schedule",
    "TrainingStage",
    "concordance_loss",
    "correlation_loss",
    "cross_entropy",
    "squared_error",
]

# What is to be raised on the validation clips. loss: the negative of the mean loss.
Measure = Literal["pearson", "weighted_f1", "loss"]
EPSILON = 1e-8  # of the concordance's denominator, for a column that does not vary


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are trained at `rate` times the stage's learning rate.

    `encoders`: at the stage's `encoder_rate` times that, since they are trained already.
    """

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    encoders: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an objective makes of a batch: its loss, predictions (B, K) if any, and which rows (B,) count."""

    loss: Tensor
    predicted: Tensor | None = None
    counts: Tensor | None = None  # None: all


class Objective(nn.Module):
    """A network and what one stage needs in addition, such as a head that is discarded afterwards."""

    measure: ClassVar[Measure] = "pearson"
    # Encoders that are trained with the network learn at this share of its rate; 0: not in this stage.
    encoder_rate: ClassVar[float] = 1.0

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """The loss of a batch and what is predicted for it; targets are (B, K)."""
        raise NotImplementedError

    def groups(self) -> Sequence[Group]:
        """What is trained, and how fast; a parameter in no group stays as it is."""
        return [Group(list(self.parameters()))]

    def encodes(self) -> tuple[Modality, ...]:
        """Whose encoders this stage trains, where there are encoders to train."""
        return MODALITIES

    if TYPE_CHECKING:

        def __call__(self, window: FusionInputs, targets: Tensor) -> Outcome:
            """As `forward`."""


class Regression(Objective):
    """The whole network, mean squared error or what `training.loss` names."""

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__(network)
        self.error: Callable[[Tensor, Tensor], Tensor] = squared_error

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Predictions of the network (B, K) and their mean squared error."""
        predicted = self.network(window)
        return Outcome(self.error(predicted, targets), predicted)


class Classification(Objective):
    """The whole network, binary cross-entropy of its logits."""

    measure: ClassVar[Measure] = "weighted_f1"

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Logits of the network (B, 1) and their cross-entropy with targets that are 0 or 1."""
        logits = self.network(window)
        return Outcome(cross_entropy(logits, targets), logits)


def correlation_loss(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean squared error and 1 - Pearson's correlation of the batch, in equal parts; no paper of the four.

    Scores are correlations; the error keeps the scale, which a correlation leaves open. A column that does
    not vary in a batch has correlation 0; one that nobody rated in it has none, and no part in the mean.
    """
    share, t = _rated(targets, counts)
    weights = share / share.sum(dim=0).clamp(min=1)
    p = predicted.float()
    p, t = p - _mean(p, weights), t - _mean(t, weights)
    spread = (_mean(p * p, weights) * _mean(t * t, weights) + EPSILON**2).sqrt()
    each = 1 - _mean(p * t, weights) / spread.clamp(min=EPSILON)
    rated = share.any(dim=0)
    apart = torch.where(rated, each, 0.0).sum() / rated.sum().clamp(min=1)
    return squared_error(predicted, targets, counts) + apart


def cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean binary cross-entropy of the rows (B, K) that count (B,), targets 0 or 1; 0 if none does."""
    share, targets = _rated(targets, counts)
    each = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return _mean(each, _of_all(share)).mean()


def squared_error(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean squared error of all ratings of the rows (B, K) that count (B,); 0 if there is none."""
    share, targets = _rated(targets, counts)
    return _mean((predicted.float() - targets) ** 2, _of_all(share)).mean()


def concordance_loss(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """1 - Lin's concordance, averaged over the columns, from the batch's own means and biased variances.

    A column that does not vary in a batch, as often with rare emotions, has concordance 0. One that nobody
    rated in this batch has none, and no part in the average.
    """
    share, targets = _rated(targets, counts)
    weights = share / share.sum(dim=0).clamp(min=1)
    predicted = predicted.float()
    mean_p, mean_t = _mean(predicted, weights), _mean(targets, weights)
    p, t = predicted - mean_p, targets - mean_t
    spread = _mean(p * p, weights) + _mean(t * t, weights) + (mean_p - mean_t) ** 2
    each = 1 - 2 * _mean(p * t, weights) / (spread + EPSILON)
    rated = share.any(dim=0)
    return torch.where(rated, each, 0.0).sum() / rated.sum().clamp(min=1)


def _rated(targets: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """1 for each rating (B, K) of a row that counts, else 0; and the ratings, 0 where they were NaN."""
    there = targets.isfinite()
    kept = there if counts is None else there & counts[:, None]
    return kept.to(targets.dtype), torch.where(there, targets, 0.0)


def _of_all(share: Tensor) -> Tensor:
    """Weights (B, K) by which the mean over columns of weighted sums is the mean over all ratings."""
    return share * share.shape[1] / share.sum().clamp(min=1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(dim=0)


@dataclass(frozen=True, slots=True)
class Clipping:
    """Gradients are limited: each value's magnitude, or the norm of all of them together."""

    limit: float
    by: Literal["value", "norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """One stage: what it learns, and how, by AdamW. It leaves the network as at its best epoch, whole."""

    name: str
    objective: Callable[[Any], Objective]  # from the system's own network; each recipe knows its class
    schedule: Schedule
    epochs: int
    patience: int  # epochs without a better score that end the stage
    batch_size: int
    learning_rate: float
    weight_decay: float
    clipping: Clipping | None = None
    margin: float = 0.0  # by how much a score must be better to count as better
    encoder_rate: float = 1.0  # times the learning rate, for encoders that are trained already; 0: they stay
    average: float | None = None  # decay per step of averaged weights, which are then scored and kept

    def adjusted(self, settings: TrainingSettings) -> TrainingStage:
        """This stage with what the settings say for all stages, then for this one."""
        changes: dict[str, Any] = {}
        for given in (settings, settings.stages.get(self.name)):
            if given is not None:
                changes |= {
                    field: value
                    for field, setting in _SETTINGS.items()
                    if (value := getattr(given, setting)) is not None
                }
        return replace(self, **changes)


_SETTINGS = {
    "epochs": "max_epochs",
    "patience": "patience",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "encoder_rate": "encoder_rate",
    "average": "average",
}


def _no_settings(clips: ClipSet) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a system is trained: its stages in order, which may depend on the network's configuration."""

    stages: Callable[[Any], tuple[TrainingStage, ...]]  # from the system's own configuration
    missing: Callable[
        [Any], str
    ]  # what an absent modality does to it, for the checkpoint's notes; from the same
    network: Callable[[ClipSet], Mapping[str, object]] = _no_settings  # what the clips decide of its settings

    def adjusted_stages(self, network: Any, settings: TrainingSettings) -> tuple[TrainingStage, ...]:
        """The stages for a network of this configuration, with what the settings say.

        Raises:
            TrainingError: the settings name a stage that there is not.
        """
        stages = self.stages(network)
        names = [stage.name for stage in stages]
        if unknown := sorted(set(settings.stages) - set(names)):
            raise TrainingError(
                f"unknown setting 'training.stages.{unknown[0]}'; the stages here are: {', '.join(names)}"
            )
        return tuple(stage.adjusted(settings) for stage in stages)


@dataclass(frozen=True, slots=True)
class Constant:
    """The stage's own rate throughout."""

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """1 at every step."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Cosine:
    """A linear rise from nearly 0 over `warm_up` epochs, then half a cosine down to 0 at the last step."""

    warm_up: int = 0

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """The share, in (0, 1], at optimiser step `step` of `epochs` x `epoch_steps`, counted from 0."""
        rise = min(self.warm_up, epochs) * epoch_steps
        if step < rise:
            return (step + 1) / rise
        fall = epochs * epoch_steps - rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, fall))))


@dataclass(frozen=True, slots=True)
class Restarts:
    """Cosine annealing with warm restarts (SGDR, Loshchilov & Hutter 2017), step by step.

    Every `cycle` epochs the rate falls from 1 towards `floor`, both shares of the stage's rate, then starts
    again; the optimiser's momentum is kept.
    """

    cycle: int
    floor: float

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """The share, in (floor, 1], at optimiser step `step`, counted from 0."""
        length = self.cycle * epoch_steps
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * (step % length) / length))


@dataclass(frozen=True, slots=True)
class Plateau:
    """The rate times `by` whenever the validation score has not risen for more than `patience` epochs.

    It acts on scores, so the training task keeps its state; it changes nothing from step to step.
    """

    by: float
    patience: int

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """1 at every step."""
        return 1.0


Schedule = Constant | Cosine | Restarts | Plateau
