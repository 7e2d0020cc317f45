"""Judges of faces: small networks that foretell how ten raters vote on a face.

Ten votes are few, so a face's own share is noisy, and a network that copies shares copies the noise. Judges
learn all votes together (also anger, fear and disgust, which none of the six stands for), and several of them
are averaged. The face branch then learns from what they say (`seeing`). They see blendshapes and the head's
direction, not where the face is in its picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from emi_models.encoders.face import BLENDSHAPES
from recipes.compact.branches import warm_up_then_cosine
from recipes.compact.ferplus import VOTES
from recipes.compact.prototypes import FEATURES, mirrored

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recipes.compact.ferplus import RatedFaces

__all__ = ["JudgeRecipe", "Judges", "train_judges"]

SEEN: Final = FEATURES.index("x")  # the first columns
LEAST_SPREAD: Final = 0.03
NO_FACE: Final = 0.3  # share of "unknown" and "not a face" from which a picture is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecipe:
    """How judges are trained; the defaults are those of the packaged checkpoint."""

    seed: int = 0
    judges: int = 4
    steps: int = 4000
    batch: int = 512
    hidden: int = 256
    dropout: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    jitter: float = 0.02  # of blendshapes, as a part of their size
    noise: float = 0.05  # on features of deviation 1
    report_every: int = 50


class Judges:
    """Trained judges, which answer together."""

    def __init__(
        self, networks: list[nn.Sequential], usual: NDArray[np.float32], spread: NDArray[np.float32]
    ) -> None:
        self._networks, self._usual, self._spread = networks, usual, spread

    @torch.no_grad()
    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The expected shares of votes, (N, 10), ordered as `VOTES`, for faces (N, 58)."""
        given = torch.from_numpy((values[:, :SEEN] - self._usual) / self._spread)
        answers = [network(given).softmax(dim=1) for network in self._networks]
        shares: NDArray[np.float32] = torch.stack(answers).mean(dim=0).numpy()
        return shares


def train_judges(faces: RatedFaces, recipe: JudgeRecipe, report: Callable[[int, float], None]) -> Judges:
    """Judges that have learned from these faces and their mirror images.

    Args:
        faces: as people rated them.
        recipe: settings of the training.
        report: called with the steps done, of all judges together, and the mean error since the last call.
    """
    values = faces.values[:, :SEEN]
    usual, spread = values.mean(axis=0), np.maximum(values.std(axis=0), LEAST_SPREAD)
    rows = np.flatnonzero(faces.share("unknown") + faces.share("NF") <= NO_FACE)
    both = np.stack([values, mirrored(faces.values)[:, :SEEN]])
    shares = torch.from_numpy(faces.shares)
    networks = []
    for place in range(recipe.judges):
        torch.manual_seed(recipe.seed + place)
        rng = np.random.default_rng(recipe.seed + place)
        network = _judge(recipe)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warm_up_then_cosine(step, recipe.steps // 10, recipe.steps)
        )
        error = 0.0
        for step in range(recipe.steps):
            row = rows[rng.integers(len(rows), size=recipe.batch)]
            shown = both[rng.integers(2, size=recipe.batch), row]
            shown[:, :BLENDSHAPES] *= 1 + recipe.jitter * rng.standard_normal(
                (recipe.batch, BLENDSHAPES), np.float32
            )
            shown = (shown - usual) / spread + np.float32(recipe.noise) * rng.standard_normal(
                shown.shape, np.float32
            )
            answers = network(torch.from_numpy(shown)).log_softmax(dim=1)
            loss = -(shares[row] * answers).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            error += loss.item()
            if (step + 1) % recipe.report_every == 0:
                report(place * recipe.steps + step + 1, error / recipe.report_every)
                error = 0.0
        networks.append(network.eval())
    return Judges(networks, usual, spread)


def _judge(recipe: JudgeRecipe) -> nn.Sequential:
    wide, narrow = recipe.hidden, recipe.hidden // 2
    return nn.Sequential(
        *(nn.Linear(SEEN, wide), nn.GELU(), nn.Dropout(recipe.dropout)),
        *(nn.Linear(wide, narrow), nn.GELU(), nn.Dropout(recipe.dropout)),
        nn.Linear(narrow, len(VOTES)),
    )
