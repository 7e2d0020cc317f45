"""Pictures of a training and of an evaluation, drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emi_models.data.files import replacing
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from emi_models.training.run import StageResult
    from emi_models.training.scores import Evaluation

__all__ = ["draw_learning", "draw_prefixes"]

_AXES: Final = {"pearson": "mean Pearson", "weighted_f1": "weighted F1", "loss": "negative loss"}


def draw_learning(path: Path, title: str, stages: Sequence[StageResult]) -> None:
    """Write a PNG with a column for each stage: losses above, the validation score below, the best marked."""
    figure = Figure(figsize=(max(5.0, 3.6 * len(stages)), 5.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, len(stages), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        above, below = grid[0][column], grid[1][column]
        epochs = [row["epoch"] for row in stage.history]
        for key, name in (("train_loss", "train"), ("valid_loss", "valid")):
            above.plot(epochs, [row[key] for row in stage.history], ".-", label=name)
        above.set(title=stage.name, ylabel="loss" if column == 0 else "")
        above.legend(frameon=False)
        below.plot(epochs, [row["score"] for row in stage.history], ".-", color="tab:green")
        below.axvline(stage.best_epoch, color="grey", linestyle=":")
        below.set(xlabel=f"epoch (best: {stage.best_epoch})", ylabel=f"valid {_AXES[stage.measure]}")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    _write(path, figure)


def draw_prefixes(path: Path, evaluation: Evaluation) -> None:
    """Write a PNG of correlation against seconds heard, each emotion's and their mean's."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    seconds = [prefix.seconds for prefix in evaluation.prefixes]
    for i, emotion in enumerate(EMOTIONS):
        rhos = [prefix.scores.pearson[i] for prefix in evaluation.prefixes]
        axes.plot(seconds, rhos, ".-", alpha=0.6, label=emotion.replace("_", " "))
    means = [prefix.scores.mean_pearson for prefix in evaluation.prefixes]
    axes.plot(seconds, means, "o-", color="black", linewidth=2, label="mean")
    axes.set(
        xlabel="seconds of each clip that the network was shown", ylabel="Pearson correlation", xticks=seconds
    )
    axes.set_title(
        f"{evaluation.system}, n = {evaluation.n} clips\n{evaluation.data}", fontsize="small", wrap=True
    )
    axes.legend(frameon=False, fontsize="small")
    _write(path, figure)


def _write(path: Path, figure: Figure) -> None:
    with replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)
