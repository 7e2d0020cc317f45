"""The words: TAEMI's text branch, trained on sentence embeddings with face and voice missing throughout."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from emi_models.inputs import FusionInputs
from emi_models.networks.taemi import Taemi
from recipes.compact.branches import follow, parameter_groups, warm_up_then_cosine
from recipes.compact.goemotions import mean_pearson
from recipes.compact.sizes import CONFIG, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from emi_models.networks.base import FusionNetwork

__all__ = ["WORDS_CONFIG", "Extra", "WordsRecipe", "predict", "text_window", "train_words"]

# Of sentences that show or deny an emotion; rest is 0.01 to 0.06.
SHOWN: Final = 0.2
DENIED: Final = 0.02
WORDS_CONFIG: Final = replace(CONFIG, modalities=("text",), mlp_hidden=256, dropout=0.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsRecipe:
    """How the network is trained; the defaults are those of the packaged checkpoint."""

    seed: int = 0
    epochs: int = 30
    patience: int = 5  # epochs without a better held-out score before training ends
    batch: int = 512
    learning_rate: float = 2e-3
    # Embeddings have length 1, so that one of their 384 values is about 0.05: the layer that reads them needs
    # larger steps. The rest of the network diverges with them.
    first_layer_rate: float = 3e-2
    weight_decay: float = 0.05
    average: float = 0.999  # decay per step of the averaged weights, which are what is scored and saved
    held_out: int = 4000  # comments of `train` that choose the epoch
    sentences: float = 0.15  # the weight of `extra` next to a batch of comments


@dataclass(frozen=True, slots=True, eq=False)
class Extra:
    """Sentences (N, 384) of which one intensity is known: which column (N,), and whether it is shown (N,).

    One that is shown must be at least `SHOWN`, one that is denied at most `DENIED`: no more is known of it.
    """

    views: Tensor
    column: Tensor
    shown: Tensor

    def error(self, network: Taemi, batch: int) -> Tensor:
        """The mean squared error of what is known of sentences drawn at random."""
        rows = torch.randint(len(self.views), (batch,))
        answers = network(text_window(self.views[rows])).gather(1, self.column[rows, None])[:, 0]
        wrong = torch.where(self.shown[rows], SHOWN - answers, answers - DENIED)
        return wrong.clamp(min=0).square().mean()


def text_window(text: Tensor, *, present: bool = True) -> FusionInputs:
    """Windows (B, ...) with only words, from embeddings (B, 384); face and voice take no memory."""
    shapes, batch = SHAPES, len(text)
    zero, no = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
    return FusionInputs(
        vision=zero.expand(batch, shapes.vision_frames, shapes.vision_dim),
        vision_mask=no.expand(batch, shapes.vision_frames),
        vision_present=no.expand(batch),
        audio=zero.expand(batch, shapes.audio_frames, shapes.audio_dim),
        audio_mask=no.expand(batch, shapes.audio_frames),
        audio_present=no.expand(batch),
        text=text,
        text_present=torch.full((batch,), present),
    )


def train_words(
    views: Sequence[Tensor],
    targets: Tensor,
    recipe: WordsRecipe,
    report: Callable[[int, float], None],
    extra: Sequence[Extra] = (),
) -> Taemi:
    """The trained network: averaged weights of the epoch with the best held-out mean Pearson.

    Args:
        views: embeddings (N, 384) of the same comments in several variants; each step draws one.
        targets: intensities, (N, 6).
        recipe: settings of the training.
        report: called with the epoch and its held-out score.
        extra: sets of sentences of which each step sees as many.
    """
    torch.manual_seed(recipe.seed)
    order = torch.randperm(len(targets))
    held_out, rows = order[: recipe.held_out], order[recipe.held_out :]
    network = Taemi(WORDS_CONFIG)
    averaged = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe), lr=recipe.learning_rate)
    steps = len(rows) // recipe.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_cosine(step, steps, steps * recipe.epochs)
    )
    best, best_score, best_epoch = averaged.state_dict(), -1.0, 0
    for epoch in range(recipe.epochs):
        network.train()
        shuffled = rows[torch.randperm(len(rows))][: steps * recipe.batch]
        for done, batch in enumerate(shuffled.split(recipe.batch), start=epoch * steps):
            loss = torch.nn.functional.mse_loss(network(text_window(_draw(views, batch))), targets[batch])
            for own in extra:
                loss = loss + recipe.sentences / len(extra) * own.error(network, recipe.batch // 16)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            follow(averaged, network, recipe.average, done)
        held = (mean_pearson(predict(averaged, view[held_out]), targets[held_out].numpy()) for view in views)
        score = sum(held) / len(views)
        report(epoch, score)
        if score > best_score:
            best, best_score, best_epoch = copy.deepcopy(averaged.state_dict()), score, epoch
        elif epoch - best_epoch >= recipe.patience:
            break
    averaged.load_state_dict(best)
    return averaged


def predict(network: FusionNetwork, text: Tensor, *, present: bool = True) -> NDArray[np.float32]:
    """Raw intensities (B, 6) from embeddings (B, 384), with face and voice missing."""
    with torch.inference_mode():
        intensities: NDArray[np.float32] = network(text_window(text, present=present)).numpy()
    return intensities


def _draw(views: Sequence[Tensor], rows: Tensor) -> Tensor:
    """The given rows (B, 384), each from a view drawn at random."""
    which = torch.randint(len(views), (len(rows), 1, 1))
    choices = torch.stack([view[rows] for view in views], dim=1)  # (B, views, 384)
    return torch.take_along_dim(choices, which, dim=1).squeeze(1)
