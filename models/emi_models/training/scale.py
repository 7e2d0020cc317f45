"""What becomes of a recipe on far fewer clips than its paper had.

TAEMI's recipe is for 8,072 clips. On about a thousand it learns them by heart: the valid score peaks after
some ten epochs and falls, below that of a ridge regression, while the error on train goes on falling
(docs/decisions/0030). Smaller layers, more dropout, weights averaged over steps, and above all weight decay
that grows as clips become fewer, bring it level. The values were found on a synthetic corpus of 1,200 clips.

Only stored features: encoders that are trained with the network keep the paper's rate and decay.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from emi_models.training.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FEW_CLIPS", "scaled"]

FEW_CLIPS: Final = 4000  # half of the paper's 8,072; from here on its own values hold
STEPS: Final = 1500  # that a training should have, however few steps an epoch has
EPOCHS: Final = (50, 200)
DECAY: Final = 3.0  # at most; of 1,000 clips and fewer
BATCH: Final = 32  # the recipe's


def scaled(system: str, config: TrainConfig, clips: int) -> tuple[TrainConfig, Mapping[str, Any]]:
    """The settings of a training on this many clips, and those of them that the number has decided.

    What `config` says itself is kept. Nothing changes for other systems than TAEMI, from 4,000 clips on, with
    `training.recipe=paper`, or if encoders are trained.

    Args:
        system: its name.
        config: what the user asked for.
        clips: how many train.
    """
    if system != "taemi" or clips >= FEW_CLIPS or config.training.recipe == "paper" or config.encoders.train:
        return config, {}
    steps = max(1, clips // (config.training.batch_size or BATCH))
    epochs = config.training.max_epochs or min(max(EPOCHS[0], math.ceil(STEPS / steps)), EPOCHS[1])
    network = {"d_model": 256, "mlp_hidden": 256, "dropout": 0.3}
    training = {
        "learning_rate": 1e-3,
        "weight_decay": round(min(DECAY, DECAY * 1000 / clips), 2),
        "max_epochs": epochs,
        "patience": max(1, epochs // 3),
        "average": 0.99,
    }
    network = {name: value for name, value in network.items() if name not in config.network}
    training = {name: value for name, value in training.items() if getattr(config.training, name) is None}
    changed = {f"network.{name}": value for name, value in network.items()}
    changed |= {f"training.{name}": value for name, value in training.items()}
    return (
        config.model_copy(
            update={
                "network": {**network, **config.network},
                "training": config.training.model_copy(update=training),
            }
        ),
        changed,
    )
