"""Train one modality's branch: a TAEMI that has only this modality, and says what it adds to rest.

`warm_up_then_cosine`, `parameter_groups` and `follow` give the learning rate, the weight decay and the
averaged weights of all trainings.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from emi_models.networks.taemi import Taemi

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from emi_models.inputs import FusionInputs
    from emi_models.networks.taemi import TaemiConfig

__all__ = [
    "BranchRecipe",
    "Draw",
    "counted",
    "follow",
    "parameter_groups",
    "train_branch",
    "warm_up_then_cosine",
]


class Draw(Protocol):
    """Where training windows come from."""

    def __call__(self, batch: int, rng: np.random.Generator) -> tuple[FusionInputs, Tensor, Tensor]:
        """Windows (B, ...), what they add to rest (B, 6), and how much each of these counts, (B, 6)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRecipe:
    """How a branch is trained; the defaults are those of the packaged checkpoint."""

    seed: int = 0
    steps: int = 12_000
    warm_up: int = 200
    batch: int = 512
    learning_rate: float = 3e-3
    first_layer_rate: float = 3e-3
    weight_decay: float = 0.003
    average: float = 0.998
    report_every: int = 50


def counted(answers: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """The mean squared error of answers (B, 6), each as often as it counts (B, 6)."""
    return ((answers - targets).square() * counts).sum() / counts.sum().clamp(min=1e-6)


def train_branch(
    config: TaemiConfig, draw: Draw, recipe: BranchRecipe, report: Callable[[int, float], None]
) -> Taemi:
    """The trained branch, averaged over its last steps.

    Args:
        config: of a network with one modality.
        draw: where windows come from.
        recipe: settings of the training.
        report: called with the steps done and the mean error since the last call.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = Taemi(config)
    averaged = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_cosine(step, recipe.warm_up, recipe.steps)
    )
    network.train()
    error = 0.0
    for step in range(recipe.steps):
        window, targets, counts = draw(recipe.batch, rng)
        loss = counted(network(window), targets, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        follow(averaged, network, recipe.average, step)
        error += loss.item()
        if (step + 1) % recipe.report_every == 0:
            report(step + 1, error / recipe.report_every)
            error = 0.0
    return averaged


def warm_up_then_cosine(step: int, warm_up: int, total: int) -> float:
    """The part of the full learning rate at a step: up over `warm_up` steps, then down to 0 at `total`."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def parameter_groups(network: Taemi, recipe: BranchRecipe) -> list[dict[str, object]]:
    """Weight decay for matrices; none for biases, norms and missing tokens."""
    first = network.head[0].weight
    matrices = [p for p in network.parameters() if p.ndim > 1 and p is not first]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": [first], "weight_decay": recipe.weight_decay, "lr": recipe.first_layer_rate},
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights a step towards the network's; faster at first, while they are few."""
    decay = min(decay, (1 + step) / (10 + step))
    for slow, quick in zip(averaged.parameters(), network.parameters(), strict=True):
        slow.lerp_(quick, 1 - decay)
