"""What a stage of training learns: a network, what is trained of it, a loss, and what validation scores.

Losses weigh rows by whether they count, so that clips which lack a modality take no part in what only that
modality can learn, and a batch in which none counts is no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from emi_models.inputs import FusionInputs
    from emi_models.networks.base import FusionNetwork

__all__ = [
    "Classification",
    "Group",
    "Measure",
    "Objective",
    "Outcome",
    "Regression",
    "concordance_loss",
    "cross_entropy",
    "squared_error",
]

# What is to be raised on the validation clips. loss: the negative of the mean loss.
Measure = Literal["pearson", "weighted_f1", "loss"]
EPSILON = 1e-8  # of the concordance's denominator, for a column that does not vary


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are trained at `rate` times the stage's learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an objective makes of a batch: its loss, predictions (B, K) if any, and which rows (B,) count."""

    loss: Tensor
    predicted: Tensor | None = None
    counts: Tensor | None = None  # None: all


class Objective(nn.Module):
    """A network and whatever is needed besides it for one stage only, such as a head that is thrown away."""

    measure: ClassVar[Measure] = "pearson"

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """The loss of a batch and what is predicted for it; targets are (B, K)."""
        raise NotImplementedError

    def groups(self) -> Sequence[Group]:
        """What is trained, and how fast; a parameter in no group stays as it is."""
        return [Group(list(self.parameters()))]

    if TYPE_CHECKING:

        def __call__(self, window: FusionInputs, targets: Tensor) -> Outcome:
            """As `forward`."""


class Regression(Objective):
    """The whole network, mean squared error."""

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Predictions of the network (B, 6) and their mean squared error."""
        predicted = self.network(window)
        return Outcome(squared_error(predicted, targets), predicted)


class Classification(Objective):
    """The whole network, binary cross-entropy of its logits."""

    measure: ClassVar[Measure] = "weighted_f1"

    def forward(self, window: FusionInputs, targets: Tensor) -> Outcome:
        """Logits of the network (B, 1) and their cross-entropy with targets that are 0 or 1."""
        logits = self.network(window)
        return Outcome(cross_entropy(logits, targets), logits)


def cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean binary cross-entropy of the rows (B, K) that count (B,), targets 0 or 1; 0 if none does."""
    each = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return _mean(each, _weights(targets, counts)).mean()


def squared_error(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean squared error of the rows (B, K) that count (B,); 0 if none does."""
    return _mean((predicted.float() - targets) ** 2, _weights(targets, counts)).mean()


def concordance_loss(predicted: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """1 - Lin's concordance, averaged over the columns, from the batch's own means and biased variances.

    A column that does not vary in a batch, as often with rare emotions, has concordance 0.
    """
    weights = _weights(targets, counts)
    predicted = predicted.float()
    mean_p, mean_t = _mean(predicted, weights), _mean(targets, weights)
    p, t = predicted - mean_p, targets - mean_t
    spread = _mean(p * p, weights) + _mean(t * t, weights) + (mean_p - mean_t) ** 2
    return (1 - 2 * _mean(p * t, weights) / (spread + EPSILON)).mean()


def _weights(targets: Tensor, counts: Tensor | None) -> Tensor:
    """Shares (B, 1) that sum to 1, or to 0 if no row counts."""
    kept = torch.ones_like(targets[:, :1]) if counts is None else counts[:, None].to(targets.dtype)
    return kept / kept.sum().clamp(min=1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(dim=0)
