"""What a training and an evaluation leave: the folder of a run, tables and pictures.

::

    OUT/
    ├── run.json                   what is trained, how and on what; a resumed run must have the same
    ├── stages/1-align/            one folder a stage: metrics.csv, best.safetensors, last.ckpt,
    │                              and once it has ended result.json in place of last.ckpt
    ├── curves.png
    └── checkpoint.safetensors     there once all is done

What the papers report is in `emi_models.training.published`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from emi_models import EMOTIONS
from emi_models.console import printable
from emi_models.errors import TrainingError
from emi_models.files import replacing
from emi_models.training.published import FROZEN_RANGE, HEADING, OFFICIAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from rich.console import Console

    from emi_models.training.evaluate import Evaluation, Scores

__all__ = [
    "RunFolder",
    "StageResult",
    "draw_learning",
    "draw_prefixes",
    "open_run",
    "show_evaluation",
]

RUN_FILE: Final = "run.json"
_AXES: Final = {"pearson": "mean Pearson", "weighted_f1": "weighted F1", "loss": "negative loss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """How a stage went: its best epoch, counted from 1, that epoch's score, and a record of each epoch."""

    name: str
    measure: str  # what `score` is: pearson (the mean of six), weighted_f1, or loss (its negative)
    best_epoch: int
    score: float
    history: tuple[Mapping[str, float], ...]

    @property
    def best(self) -> Mapping[str, float]:
        """The record of the best epoch."""
        return self.history[self.best_epoch - 1]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one training keeps its things."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The trained network."""
        return self.path / "checkpoint.safetensors"

    @property
    def curves(self) -> Path:
        """The PNG of losses and scores."""
        return self.path / "curves.png"

    def stage(self, number: int, name: str) -> Path:
        """The folder of a stage, numbered from 1; made if it is not there."""
        folder = self.path / "stages" / f"{number}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def result(self, number: int, name: str) -> StageResult | None:
        """How a stage went, None if it has not ended.

        Raises:
            TrainingError: its file is damaged.
        """
        path = self.stage(number, name) / "result.json"
        if not path.is_file():
            return None
        metadata = _read(path)
        return StageResult(**{**metadata, "history": tuple(metadata["history"])})

    def finish(self, number: int, result: StageResult) -> None:
        """Write down how a stage went; its state is not needed any more."""
        folder = self.stage(number, result.name)
        with replacing(folder / "result.json") as part:
            part.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
        (folder / "last.ckpt").unlink(missing_ok=True)


def open_run(path: Path, metadata: Mapping[str, Any], *, resume: bool, force: bool) -> RunFolder:
    """The folder of the training that `metadata` describes, new or to continue.

    Args:
        path: the folder; made if it is not there.
        metadata: what is trained, how and on what, as JSON can hold it.
        resume: continue the run that is there, if there is one.
        force: throw away the run that is there.

    Raises:
        TrainingError: there is a run and neither is allowed, or the run to continue is another.
    """
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be a folder: {error.strerror}; name another --out") from error
    there = path / RUN_FILE
    if force and there.is_file():  # nothing else in that folder is ours to remove
        shutil.rmtree(path / "stages", ignore_errors=True)
        for file in (there, folder.checkpoint, folder.curves):
            file.unlink(missing_ok=True)
    elif there.is_file() and not resume:
        raise TrainingError(
            f"{path} holds a run of {_read(there).get('system')} already; --resume goes on with it, --force "
            "throws it away, or name another --out"
        )
    elif there.is_file():
        # Through JSON, as what is compared with has been.
        if difference := _difference(_read(there), json.loads(json.dumps(metadata))):
            raise TrainingError(
                f"{path} holds another run: {difference}; give what it was started with, or another --out"
            )
        return folder
    elif folder.checkpoint.is_file() and not force:
        raise TrainingError(
            f"{folder.checkpoint} is there already; --force replaces it, or name another --out"
        )
    with replacing(there) as part:
        part.write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    return folder


def _read(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; start again with --force") from error
    if not isinstance(metadata, dict):
        raise TrainingError(f"{path} is not what a training writes; start again with --force")
    return metadata


def _difference(old: object, new: object, name: str = "") -> str | None:
    """The first setting in which two metadata differ, as words; None if they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else key
            if found := _difference(old.get(key), new.get(key), inner):
                return found
        return None
    return None if old == new else f"{name} was {old!r} and is now {new!r}"


def draw_learning(path: Path, title: str, stages: Sequence[StageResult]) -> None:
    """Write a PNG with a column for each stage: losses above, the validation score below, the best marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(max(5.0, 3.6 * len(stages)), 5.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, len(stages), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        above, below = grid[0][column], grid[1][column]
        epochs = [row["epoch"] for row in stage.history]
        for key, name in (("train_loss", "train"), ("valid_loss", "valid")):
            if key in stage.history[0]:
                above.plot(epochs, [row[key] for row in stage.history], ".-", label=name)
        above.set(title=stage.name, ylabel="loss" if column == 0 else "")
        above.legend(frameon=False)
        below.plot(epochs, [row["score"] for row in stage.history], ".-", color="tab:green")
        below.axvline(stage.best_epoch, color="grey", linestyle=":")
        whose = "valid" if "valid_loss" in stage.history[0] else "train"
        below.set(xlabel=f"epoch (best: {stage.best_epoch})", ylabel=f"{whose} {_AXES[stage.measure]}")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    _write(path, figure)


def draw_prefixes(path: Path, evaluation: Evaluation) -> None:
    """Write a PNG of correlation against seconds shown, each target's and their mean's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    seconds = [prefix.seconds for prefix in evaluation.prefixes]
    for i, name in enumerate(evaluation.whole.names):
        rhos = [prefix.scores.pearson[i] for prefix in evaluation.prefixes]
        axes.plot(seconds, rhos, ".-", alpha=0.6, label=name.replace("_", " "))
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)


_SENSES: Final = {"vision": "face", "audio": "voice", "text": "words"}


def show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print scores by emotion, by seconds shown and by modality, and what is published on the same data."""
    line = f"{evaluation.system} on {evaluation.data}; {evaluation.split}; n = {evaluation.n} clips"
    console.print(printable(line), style="bold", markup=False, highlight=False, soft_wrap=True)
    if evaluation.task == "emi":
        console.print(_by_emotion(evaluation))
        if evaluation.prefixes:
            console.print(_by_seconds(evaluation))
    if evaluation.without:
        console.print(_by_modality(evaluation))
    if evaluation.weights:
        told = ", ".join(f"{modality} {share:.3f}" for modality, share in evaluation.weights.items())
        console.print(f"learned weights of the modalities: {told}", highlight=False)
    if evaluation.task == "bah":
        console.print(_by_level(evaluation))
    elif evaluation.published:
        console.print(_published(evaluation))
        if not evaluation.tuned:
            console.print(_frozen_words(), style="yellow", highlight=False, soft_wrap=True)
    else:
        why = (
            f"these clips are not {OFFICIAL}"
            if evaluation.whole.names == EMOTIONS
            else "the labels are others"
        )
        console.print(
            f"The papers' tables are not shown: {why}, scores cannot be compared.",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )


def _by_emotion(evaluation: Evaluation) -> Table:
    table = _table("whole clips, 12 s at most", ("Pearson", "CCC", "MSE"))
    whole = evaluation.whole
    for i, name in enumerate(whole.names):
        table.add_row(name, f"{whole.pearson[i]:.3f}", f"{whole.ccc[i]:.3f}", f"{whole.mse[i]:.4f}")
    means = (sum(column) / len(column) for column in (whole.pearson, whole.ccc, whole.mse))
    rho, ccc, mse = means
    table.add_section()
    table.add_row("mean", f"{rho:.4f}", f"{ccc:.4f}", f"{mse:.4f}", style="bold")
    return table


def _by_seconds(evaluation: Evaluation) -> Table:
    by_seconds = {f"{prefix.seconds:g} s": prefix.scores for prefix in evaluation.prefixes}
    table = _pearson_table("Pearson against seconds shown", by_seconds)
    table.add_row("clips", *(str(prefix.scores.n) for prefix in evaluation.prefixes), style="dim")
    table.add_row("of them cut", *(str(prefix.cut) for prefix in evaluation.prefixes), style="dim")
    return table


def _by_level(evaluation: Evaluation) -> Table:
    """Frames and whole videos, with what is published where the data are BAH's."""
    table = _table("ambivalence or hesitancy", ("n", "weighted F1", "macro F1", "AP"))
    for name, scores in (("frames", evaluation.whole), ("videos", evaluation.videos)):
        if scores is not None:
            figures = (scores.weighted_f1, scores.macro_f1, scores.average_precision)
            table.add_row(name, str(scores.n), *("-" if x is None else f"{x:.4f}" for x in figures))
    if evaluation.data.startswith("BAH"):
        table.add_section()
        table.add_row("published, frames: semantic_matters, V+T, valid", "", ".725", "", "", style="dim")
        table.add_row("published, videos: best of the 10th ABAW, test", "", "", ".7266", "", style="dim")
    return table


def _by_modality(evaluation: Evaluation) -> Table:
    views: dict[str, Scores] = {"all": evaluation.whole}
    views |= {f"no {_SENSES[m]}": scores for m, scores in evaluation.without.items()}
    views |= {f"{_SENSES[m]} alone": scores for m, scores in evaluation.alone.items()}
    if evaluation.task == "bah":
        table = _table("by what is shown", tuple(views))
        table.add_row("weighted F1", *(f"{scores.score:.3f}" for scores in views.values()))
        return table
    return _pearson_table("Pearson by what is shown, whole clips", views)


def _pearson_table(title: str, columns: Mapping[str, Scores]) -> Table:
    """A row for each target and one for their mean."""
    table = _table(title, tuple(columns))
    for i, name in enumerate(next(iter(columns.values())).names):
        table.add_row(name, *(f"{scores.pearson[i]:.3f}" for scores in columns.values()))
    table.add_section()
    table.add_row("mean", *(f"{scores.mean_pearson:.3f}" for scores in columns.values()), style="bold")
    return table


def _published(evaluation: Evaluation) -> Table:
    """Rows with the same kind of encoders first: frozen ones, or trained ones."""
    frozen = not evaluation.tuned
    table = _table(HEADING, ("shown", "valid", "test"))
    table.add_column("encoders")
    table.add_column("source", overflow="fold")
    table.add_row(
        f"this {evaluation.system}",
        "",
        f"{evaluation.whole.mean_pearson:.3f}",
        "",
        "frozen" if frozen else "trained",
        Text(printable(evaluation.split)),
        style="bold",
    )
    for alike in (True, False):
        table.add_section()
        for row in evaluation.published:
            if (row.frozen == frozen) != alike:
                continue
            scores = ("-" if value is None else f"{value:g}" for value in (row.valid, row.test))  # as printed
            trained = "frozen" if row.frozen else "trained"
            table.add_row(
                row.name, row.modalities, *scores, trained, row.source, style="" if alike else "dim"
            )
    return table


def _frozen_words() -> str:
    low, high = FROZEN_RANGE
    return (
        "This network's encoders were not trained. With such features the papers reach about "
        f"{low:g} (text) to {high:g} (all): compare with the rows marked frozen, "
        "not with 0.55. --train-encoders trains them."
    )


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, min_width=max(map(len, EMOTIONS)))
    for column in columns:
        table.add_column(column, justify="right")
    return table
