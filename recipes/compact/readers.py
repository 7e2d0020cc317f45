"""Readers of comments: small networks that foretell how people label a comment.

They learn all 28 labels of GoEmotions together, also those that none of the six stands for, and the six
intensities (`goemotions.MAPPING`); several of them are averaged. The words branch then learns from what they
say (`words`), as the face branch learns from judges (`judges`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from emi_models import EMOTIONS
from emi_models.encoders.sentence import SENTENCE_DIM
from recipes.compact.branches import follow, warm_up_then_cosine
from recipes.compact.goemotions import mean_pearson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["ReaderRecipe", "Readers", "train_readers"]

SIX: Final = len(EMOTIONS)
LEAST_SHARE: Final = 1e-3  # from which a label's bias starts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRecipe:
    """How readers are trained; the defaults are those of the packaged checkpoint."""

    seed: int = 0
    readers: int = 3
    epochs: int = 20
    patience: int = 4  # epochs without a better held-out score before training ends
    batch: int = 512
    hidden: int = 256
    dropout: float = 0.4
    learning_rate: float = 2e-3
    # Embeddings have length 1, so that one of their 384 values is about 0.05: the layer that reads them needs
    # larger steps.
    first_layer_rate: float = 2e-2
    weight_decay: float = 0.05
    average: float = 0.999  # decay per step of the averaged weights, which are what is scored and kept
    held_out: int = 4000  # comments of `train` that choose the epoch, the same for every reader


class Readers:
    """Trained readers, which answer together."""

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        self._networks = list(networks)

    @torch.no_grad()
    def __call__(self, text: Tensor) -> Tensor:
        """The expected intensities (N, 6), 0 to 1, of embeddings (N, 384)."""
        return torch.stack([_intensities(network, text) for network in self._networks]).mean(dim=0)


def held_out_rows(count: int, recipe: ReaderRecipe) -> tuple[Tensor, Tensor]:
    """Rows to choose the epoch by, and rows to learn from."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(recipe.seed))
    return order[: recipe.held_out], order[recipe.held_out :]


def train_readers(
    views: Sequence[Tensor],
    targets: Tensor,
    labels: Tensor,
    recipe: ReaderRecipe,
    report: Callable[[int, float], None],
) -> Readers:
    """Readers with the averaged weights of their epoch with the best held-out mean Pearson.

    Args:
        views: embeddings (N, 384) of the same comments in several variants; each step draws one.
        targets: intensities, (N, 6), 0 to 1.
        labels: which of the labels a comment has, (N, L).
        recipe: settings of the training.
        report: called with the epochs done, of all readers together, and the last held-out score.
    """
    held_out, rows = held_out_rows(len(targets), recipe)
    wanted = torch.cat([targets, labels], dim=1)
    networks = []
    for place in range(recipe.readers):
        torch.manual_seed(recipe.seed + place)
        network = _reader(recipe, wanted[rows].mean(dim=0))
        averaged = copy.deepcopy(network).eval()
        optimizer = torch.optim.AdamW(_parameter_groups(network, recipe), lr=recipe.learning_rate)
        steps = max(1, len(rows) // recipe.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(warm_up_then_cosine, warm_up=steps, total=steps * recipe.epochs)
        )
        best, best_score, best_epoch = copy.deepcopy(averaged.state_dict()), -1.0, 0
        for epoch in range(recipe.epochs):
            network.train()
            shuffled = rows[torch.randperm(len(rows))][: steps * recipe.batch]
            for done, batch in enumerate(shuffled.split(recipe.batch), start=epoch * steps):
                answers, truth = network(drawn(views, batch)), wanted[batch]
                loss = binary_cross_entropy_with_logits(answers[:, :SIX], truth[:, :SIX])
                loss = loss + binary_cross_entropy_with_logits(answers[:, SIX:], truth[:, SIX:])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                follow(averaged, network, recipe.average, done)
            with torch.no_grad():
                held = [
                    mean_pearson(_intensities(averaged, view[held_out]).numpy(), targets[held_out].numpy())
                    for view in views
                ]
            score = sum(held) / len(held)
            report(place * recipe.epochs + epoch + 1, score)
            if score > best_score:
                best, best_score, best_epoch = copy.deepcopy(averaged.state_dict()), score, epoch
            elif epoch - best_epoch >= recipe.patience:
                break
        averaged.load_state_dict(best)
        networks.append(averaged)
    return Readers(networks)


def drawn(views: Sequence[Tensor], rows: Tensor) -> Tensor:
    """The given rows (B, 384), each from a view drawn at random."""
    which = torch.randint(len(views), (len(rows), 1, 1))
    choices = torch.stack([view[rows] for view in views], dim=1)  # (B, views, 384)
    return torch.take_along_dim(choices, which, dim=1).squeeze(1)


def _intensities(network: nn.Sequential, text: Tensor) -> Tensor:
    return torch.sigmoid(network(text)[:, :SIX])


def _reader(recipe: ReaderRecipe, usual: Tensor) -> nn.Sequential:
    """A network with answers near the usual ones, (6 + L,)."""
    last = nn.Linear(recipe.hidden, len(usual))
    with torch.no_grad():
        last.bias.copy_(torch.logit(usual.clamp(LEAST_SHARE, 1 - LEAST_SHARE)))
    first = nn.Linear(SENTENCE_DIM, recipe.hidden)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(recipe.dropout), last)


def _parameter_groups(network: nn.Sequential, recipe: ReaderRecipe) -> list[dict[str, object]]:
    first, last = network[0], network[3]
    return [
        {"params": [first.weight], "weight_decay": recipe.weight_decay, "lr": recipe.first_layer_rate},
        {"params": [last.weight], "weight_decay": recipe.weight_decay},
        {"params": [first.bias, last.bias], "weight_decay": 0.0},
    ]
