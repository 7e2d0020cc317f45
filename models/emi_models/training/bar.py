"""What a person sees of a training: one bar for each stage with its score, or a line for each epoch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lightning.pytorch as pl
    from rich.console import Console

    from emi_models.training.callbacks import Keeper
    from emi_models.training.task import StageTask

__all__ = ["Bar", "bars", "score_words"]

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
        """Show what the epoch has brought; the keeper, whose turn comes later, knows the epochs before."""
        epoch, score = len(self.keeper.history) + 1, task.record["score"]
        measure = task.objective.measure
        best = score_words(measure, max(score, self.keeper.best)).rpartition(" ")[2]
        note = f"epoch {epoch}/{task.stage.epochs}  valid {score_words(measure, score)} (best {best})"
        if self.progress is not None and self.drawn is not None:
            self.progress.update(self.drawn, note=note)
        else:
            line = f"{task.stage.name}: {note}, loss {task.record['train_loss']:.5f}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, task: StageTask) -> None:
        """A stage that ended early leaves a full bar."""
        if self.progress is not None and self.drawn is not None:
            self.progress.update(self.drawn, completed=task.epoch_steps * task.stage.epochs)
