"""One stage as Lightning trains it: batches in, a loss out, and a score on the validation clips.

Repeatable to the last bit on a CPU: an epoch's order depends on (seed, stage, epoch) alone, what an optimiser
step draws at random on (seed, stage, step) alone. So a training that is resumed after any epoch does what it
would have done.

`Keeper` saves the best network and the state to resume from after each epoch. `Bar` shows one bar for each
stage with its score, or a line for each epoch.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import logging
import math
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import BatchSampler, DataLoader, Sampler

from emi_models import EMOTIONS
from emi_models.data.batches import BucketedBatches, collate
from emi_models.data.raters import Weighed
from emi_models.errors import TrainingError
from emi_models.files import replacing
from emi_models.inputs import FusionInputs
from emi_models.training.evaluate import score
from emi_models.training.recipe import Outcome, Plateau

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from torch import Tensor

    from emi_models.data.batches import ClipWindows
    from emi_models.training.config import DataSettings
    from emi_models.training.encoders import TrainedEncoders
    from emi_models.training.recipe import Group, Objective, TrainingStage

__all__ = ["Bar", "Keeper", "Lines", "Shares", "Shuffled", "StageTask", "bars", "score_words", "seed_of"]


def seed_of(*parts: object) -> int:
    """A seed that depends on all of its parts, from 0 to 2^63 - 1; the same in every process."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Shuffled(Sampler[int]):
    """The numbers below `n` in an order that only `seed` decides, however often it is asked."""

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.seed = seed

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        yield from torch.randperm(self.n, generator=generator).tolist()


class StageTask(pl.LightningModule):
    """A stage's objective with its data, optimiser and schedule.

    Batches are full ones, in a new order each epoch, unless all clips together are fewer than one batch. With
    `stage.average`, weights averaged over steps are what validation scores: their decay is
    min(average, (1 + n) / (10 + n)) at step n, so that they soon forget the start. It reaches .999 at step
    8,990, in epoch 36 of Hume-Vidmimic2.

    `weights` say how often each clip is shown, 1 on average (`emi_models.data.raters`); None: once an epoch.

    With `encoders`, clips come with their media, and what these make of them is what the objective sees.
    Several processes share each batch, row by row, and the validation clips; gradients are averaged. A loss
    that compares rows (concordance, contrast) then compares those of one process.
    """

    def __init__(
        self,
        objective: Objective,
        stage: TrainingStage,
        learn: ClipWindows,
        check: ClipWindows | None,
        seed: int,
        data: DataSettings,
        encoders: TrainedEncoders | None = None,
        threads: int | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.encoders = encoders
        self.stage = stage
        self.learn, self.check = learn, check
        self.seed, self.data = seed, data
        self.threads = threads
        self.weights = weights
        kept = stage.encoder_rate > 0
        self.groups = [group for group in objective.groups() if kept or not group.encoders]
        objective.requires_grad_(False)
        for group in self.groups:
            for parameter in group.parameters:
                parameter.requires_grad_(True)
        self._begin_encoders()
        self.averaged = copy.deepcopy(objective).requires_grad_(False) if stage.average is not None else None
        self.record: dict[str, float] = {}  # of the epoch that has ended last: losses, scores, learning rate
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        self._rate = 0.0  # of the step that was last, for the first group
        self._losses: list[Tensor] = []
        self._checked: list[tuple[Outcome, Tensor]] = []

    @property
    def shown(self) -> Objective:
        """What is scored and kept: the averaged weights if there are any, else those that are trained."""
        return self.objective if self.averaged is None else self.averaged

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return max(1, len(self.learn) // self.stage.batch_size)

    def train_dataloader(self) -> DataLoader[Any]:
        """This epoch's batches."""
        size, n = self.stage.batch_size, len(self.learn)
        self.learn.set_epoch(self.current_epoch)
        seed = seed_of(self.seed, self.stage.name, "order", self.current_epoch)
        if self.data.bucketed:
            alike = BucketedBatches(self.learn.lengths_s(), size, seed=seed, drop_last=True)
            return self._loader(self.learn, self._share(alike))
        order = Shuffled(n, seed) if self.weights is None else Weighed(self.weights, seed)
        shuffled = BatchSampler(order, size, drop_last=n >= size)
        return self._loader(self.learn, self._share(shuffled))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The validation clips in their order; nothing where none validates."""
        if self.check is None:
            return []
        rows = BatchSampler(range(len(self.check)), self.stage.batch_size, drop_last=False)
        return self._loader(self.check, self._share(rows))

    def setup(self, stage: str) -> None:
        """In a process that has just been started: its threads, and which encoders train."""
        self._begin_encoders()
        if self.trainer.world_size > 1:
            logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # as `own_state` does
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def _begin_encoders(self) -> list[Group]:
        if self.encoders is None:
            return []
        return self.encoders.begin(self.objective.encodes(), self.objective.encoder_rate)

    def _share(self, batches: Sampler[list[int]]) -> Sampler[list[int]]:
        """This process's part of each batch."""
        count = self.trainer.world_size if self._trainer is not None else 1
        return batches if count == 1 else Shares(batches, self.global_rank, count)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Windows and targets on the device that trains."""
        window, targets = batch
        if self.encoders is not None:
            return window.to(device), targets.to(device)
        return FusionInputs(*(tensor.to(device) for tensor in window.tensors())), targets.to(device)

    def configure_optimizers(self) -> Any:
        """AdamW over the objective's groups, and the stage's schedule."""
        stage, schedule = self.stage, self.stage.schedule
        groups = [*self.groups, *self._begin_encoders()]
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": list(g.parameters),
                    "lr": stage.learning_rate * g.rate * (stage.encoder_rate if g.encoders else 1),
                }
                for g in groups
            ],
            weight_decay=stage.weight_decay,
        )
        if isinstance(schedule, Plateau):  # stepped here, not by Lightning, which does not save all it needs
            self._plateau = ReduceLROnPlateau(
                optimizer, "max", factor=schedule.by, patience=schedule.patience
            )
            if self._plateau_state is not None:
                self._plateau.load_state_dict(self._plateau_state)
            return optimizer
        steps = self.epoch_steps
        rate = LambdaLR(optimizer, lambda step: schedule.factor(step, steps, stage.epochs))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout and its like draw what this step always draws."""
        self._rate = self.optimizers().param_groups[0]["lr"]
        rank = [self.global_rank] if self.trainer.world_size > 1 else []
        torch.manual_seed(seed_of(self.seed, self.stage.name, "step", self.global_step, *rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        window, targets = batch
        outcome = self.objective(self._window(window), targets)
        self._losses.append(outcome.loss.detach())
        return outcome.loss

    def _window(self, window: Any) -> FusionInputs:
        """What the objective sees of a batch."""
        seen: FusionInputs = window if self.encoders is None else self.encoders(window)
        return seen

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The averaged weights follow. Where no clip validates, the epoch is scored after its last batch."""
        if self.check is None and batch_idx + 1 == self.epoch_steps:
            self.record = self._record_of_training()
            self.record["score"] = -self.record["train_loss"]
        if self.averaged is None or self.stage.average is None:
            return
        done = self.global_step
        decay = min(self.stage.average, (1 + done) / (10 + done))
        for slow, quick in zip(self.averaged.parameters(), self.objective.parameters(), strict=True):
            slow.lerp_(quick, 1 - decay)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """What is made of a batch of validation clips."""
        window, targets = batch
        outcome = self.shown(self._window(window), targets)
        kept = Outcome(*(None if t is None else t.detach().cpu() for t in _parts(outcome)))  # type: ignore[arg-type]  # a loss is always there
        self._checked.append((kept, targets.cpu()))

    def on_validation_epoch_end(self) -> None:
        """Score the epoch, and let a plateau lower the learning rate.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        checked, self._checked = self._gathered(self._checked), []
        rows = torch.tensor([len(targets) for _, targets in checked], dtype=torch.float64)
        valid = torch.stack([outcome.loss.double().cpu() for outcome, _ in checked])
        record = self._record_of_training()
        record["valid_loss"] = float((valid * rows).sum() / rows.sum())
        self._check_loss(record["valid_loss"])
        self.record = record | self._score(checked, record["valid_loss"])
        if self._plateau is not None:
            self._plateau.step(self.record["score"])

    def _record_of_training(self) -> dict[str, float]:
        losses, self._losses = torch.stack(self._gathered([loss.cpu() for loss in self._losses])), []
        loss = float(losses.double().mean())
        self._check_loss(loss)
        return {"train_loss": loss, "learning_rate": self._rate}

    def _gathered(self, mine: list[Any]) -> list[Any]:
        """What all processes have of a list; with one process, its own."""
        if self._trainer is None or self.trainer.world_size == 1:
            return mine
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, mine)
        return [one for part in parts for one in part]

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not finite in epoch {self.current_epoch + 1} of stage {self.stage.name}; lower "
                "training.learning_rate, or look for features that are not finite"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the plateau has seen."""
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give it back, once there is an optimiser."""
        self._plateau_state = checkpoint.get("plateau")

    def _loader(self, windows: ClipWindows, batches: Sampler[list[int]]) -> DataLoader[Any]:
        return DataLoader(
            windows,
            batch_sampler=batches,
            collate_fn=collate if self.encoders is None else _collate_media(),
            num_workers=self.data.workers,
            # A fork of a process with threads can hang.
            multiprocessing_context="forkserver" if self.data.workers else None,
            generator=torch.Generator(),  # else each epoch draws from the generator that dropout uses
        )

    def _score(self, checked: list[tuple[Outcome, Tensor]], loss: float) -> dict[str, float]:
        """What is to be raised, as `score`, and its parts."""
        if self.objective.measure == "loss":
            return {"score": -loss}
        predicted, truth = [], []
        for outcome, targets in checked:
            if outcome.predicted is not None:
                kept = slice(None) if outcome.counts is None else outcome.counts
                predicted.append(outcome.predicted[kept].float())
                truth.append(targets[kept])
        names = EMOTIONS if self.check is None else [target.name for target in self.check.rated]
        return score(self.objective.measure, torch.cat(predicted), torch.cat(truth), names)


def _parts(outcome: Outcome) -> tuple[Tensor | None, ...]:
    return outcome.loss, outcome.predicted, outcome.counts


def _collate_media() -> Any:
    from emi_models.training.media_windows import collate_media  # it needs what only encoders need

    return collate_media


class Shares(Sampler[list[int]]):
    """Of each batch every `count`-th row from `rank` on; a batch of which nothing is left is skipped."""

    def __init__(self, batches: Sampler[list[int]], rank: int, count: int) -> None:
        self.batches = batches
        self.rank = rank
        self.count = count

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            if share := batch[self.rank :: self.count]:
                yield share


class Keeper(Checkpoint):
    """Keeps in the stage's folder the best epoch's network, the last one's state, and a line for each.

    `best.safetensors` is the whole network, `encoders.safetensors` what was trained of the encoders, if any;
    `last.ckpt` Lightning's own state; `metrics.csv` the epochs. Of several processes one writes. An
    epoch is better if its score is more than `margin` above the best; `patience` epochs without a better one
    end the stage. With `last` the last epoch is the best and patience does not run out. Lightning calls a
    `Checkpoint` after all other callbacks.
    """

    def __init__(self, folder: Path, margin: float, patience: int, *, last: bool = False) -> None:
        self.last = last
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
        """Keep, decide and save, in this order: a state that is saved has its best network next to it."""
        self.history.append({"epoch": len(self.history) + 1, **task.record})
        if self.last or task.record["score"] > self.best + self.margin:
            self.best, self.best_epoch = task.record["score"], len(self.history)
            if trainer.is_global_zero:
                self._save_best(task)
        trainer.should_stop = self.spent
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.folder / "last.ckpt")  # waits for the one that writes
            return
        self._write_metrics()
        with replacing(self.folder / "last.ckpt") as part:
            trainer.save_checkpoint(part)

    def _save_best(self, task: StageTask) -> None:
        weights = {name: t.detach().cpu().contiguous() for name, t in task.shown.network.state_dict().items()}
        with replacing(self.folder / "best.safetensors") as part:
            save_file(weights, part)
        if task.encoders is not None and task.encoders.active:
            with replacing(self.folder / "encoders.safetensors") as part:
                save_file(task.encoders.tuned_state(), part)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: numbers in lists and dictionaries."""
        return {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from an earlier run."""
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


class Lines(Callback):
    """Tells of each epoch by a line on the standard error; for several processes, of which one tells."""

    def on_train_epoch_end(self, trainer: pl.Trainer, task: StageTask) -> None:
        """Say the epoch's result."""
        if not trainer.is_global_zero:
            return
        words = score_words(task.objective.measure, task.record["score"])
        epoch = f"epoch {task.current_epoch + 1}/{task.stage.epochs}"
        loss = task.record["train_loss"]
        sys.stderr.write(f"{task.stage.name}: {epoch}  valid {words}, loss {loss:.5f}\n")


_NAMES: Final = {"pearson": "Pearson", "weighted_f1": "weighted F1", "loss": "loss"}


def score_words(measure: str, score: float) -> str:
    """A validation score as people read it; a loss without the sign that makes it a score."""
    return f"{_NAMES[measure]} {-score if measure == 'loss' else score:.4f}"


@contextmanager
def bars(console: Console | None) -> Iterator[Progress | None]:
    """The place where stages draw their bars; None without a console, or where it is not a terminal."""
    if console is None or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        yield progress


class Bar(Callback):
    """Tells of one stage while it is trained; `keeper` is asked for the best score so far."""

    def __init__(self, progress: Progress | None, console: Console, keeper: Keeper) -> None:
        self.progress = progress
        self.console = console
        self.keeper = keeper
        self.drawn: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, task: StageTask) -> None:
        """Draw the bar, where an earlier run has left it."""
        if self.progress is not None:
            total = task.epoch_steps * task.stage.epochs
            self.drawn = self.progress.add_task(
                task.stage.name, total=total, completed=task.global_step, note=""
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """A step further."""
        if self.progress is not None and self.drawn is not None:
            self.progress.update(self.drawn, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: StageTask) -> None:
        """Show the epoch's result; the keeper runs later and so knows only the epochs before."""
        epoch, score = len(self.keeper.history) + 1, task.record["score"]
        measure = task.objective.measure
        best = score_words(measure, max(score, self.keeper.best)).rpartition(" ")[2]
        note = f"epoch {epoch}/{task.stage.epochs}  valid {score_words(measure, score)} (best {best})"
        if task.check is None:
            note = f"epoch {epoch}/{task.stage.epochs}"
        if self.progress is not None and self.drawn is not None:
            self.progress.update(self.drawn, note=note)
        else:
            line = f"{task.stage.name}: {note}, loss {task.record['train_loss']:.5f}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, task: StageTask) -> None:
        """A stage that ended early leaves a full bar."""
        if self.progress is not None and self.drawn is not None:
            self.progress.update(self.drawn, completed=task.epoch_steps * task.stage.epochs)
