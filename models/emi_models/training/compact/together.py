"""All three modalities together, from the words' network on.

The network starts from the one that learned the words alone, and is trained on the mixture, where the words'
part of a target is what that one says: so the words' answer stays what people's ratings made it, and only
what faces and voices add is new.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from emi_models.networks.taemi import Taemi
from emi_models.training.compact.average import follow, warm_up_then_cosine
from emi_models.training.compact.sizes import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable

    from emi_models.training.compact.mixture import Mixture

__all__ = ["Recipe", "train_together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the network is trained; the defaults are those of the packaged checkpoint."""

    seed: int = 0
    steps: int = 8000
    warm_up: int = 200
    batch: int = 256
    learning_rate: float = 2e-3
    # The layer that reads the words has learned its part, and reads what is new with the same matrix.
    first_layer_rate: float = 2e-3
    weight_decay: float = 0.02
    average: float = 0.998
    # How much windows count in which a face or a voice adds to words. People rated the words and nobody the
    # displays: a doubtful one may count for what it is without words, and beside words for next to nothing.
    adds_weight: float = 0.02
    report_every: int = 50


def train_together(
    words: Taemi, mixture: Mixture, recipe: Recipe, report: Callable[[int, float], None]
) -> Taemi:
    """The trained network, averaged over its last steps.

    Args:
        words: the network that learned the words alone; it is left as it is.
        mixture: where windows come from.
        recipe: how.
        report: told the steps done and the weighted mean squared error since it was told before.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = Taemi(CONFIG)
    network.load_state_dict(words.state_dict())
    averaged = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(_groups(network, recipe), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_cosine(step, recipe.warm_up, recipe.steps)
    )
    network.train()
    error = 0.0
    for step in range(recipe.steps):
        window, shows, adds = mixture.draw(recipe.batch, rng)
        weight = torch.where(adds, recipe.adds_weight, 1.0)
        squared = (network(window) - shows).square().mean(dim=1)  # (B,)
        loss = (weight * squared).sum() / weight.sum()
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


def _groups(network: Taemi, recipe: Recipe) -> list[dict[str, object]]:
    """Weight decay for matrices; none for biases, norms and missing tokens."""
    first = network.head[0].weight
    matrices = [p for p in network.parameters() if p.ndim > 1 and p is not first]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": [first], "weight_decay": recipe.weight_decay, "lr": recipe.first_layer_rate},
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
