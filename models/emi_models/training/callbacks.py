"""What happens after each epoch: the best network is kept, and all that is needed to go on from there."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import save_file

from emi_models.data.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    import lightning.pytorch as pl

    from emi_models.training.task import StageTask

__all__ = ["Keeper"]


class Keeper(Checkpoint):
    """Keeps in the stage's folder the best epoch's network, the last one's state, and a line for each.

    `best.safetensors` is the whole network; `last.ckpt` Lightning's own state; `metrics.csv` the epochs. An
    epoch is better if its score is more than `margin` above the best; `patience` epochs without a better one
    end the stage. Lightning calls a `Checkpoint` after all other callbacks.
    """

    def __init__(self, folder: Path, margin: float, patience: int) -> None:
        self.folder = folder
        self.margin = margin
        self.patience = patience
        self.history: list[dict[str, float]] = []
        self.best = -math.inf
        self.best_epoch = 0  # counted from 1

    @property
    def spent(self) -> bool:
        """Whether patience has run out."""
        return len(self.history) - self.best_epoch >= self.patience

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """A stage that was cut off right after its last epoch needs no further one."""
        trainer.should_stop = bool(self.history) and self.spent

    def on_train_epoch_end(self, trainer: pl.Trainer, task: StageTask) -> None:
        """Keep, decide and save, in this order: a state that is saved has its best network beside it."""
        self.history.append({"epoch": len(self.history) + 1, **task.record})
        if task.record["score"] > self.best + self.margin:
            self.best, self.best_epoch = task.record["score"], len(self.history)
            weights = {
                name: t.detach().cpu().contiguous() for name, t in task.shown.network.state_dict().items()
            }
            with replacing(self.folder / "best.safetensors") as part:
                save_file(weights, part)
        trainer.should_stop = self.spent
        self._write_metrics()
        with replacing(self.folder / "last.ckpt") as part:
            trainer.save_checkpoint(part)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: numbers in lists and dictionaries."""
        return {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier run."""
        self.history = list(state_dict["history"])
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def _write_metrics(self) -> None:
        """All epochs so far, so that the file of a resumed stage has each once."""
        with (
            replacing(self.folder / "metrics.csv") as part,
            part.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, list(self.history[0]))
            writer.writeheader()
            writer.writerows(self.history)
