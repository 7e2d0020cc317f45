"""An evaluation as tables that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

from emi_models.training.published import HEADING, OFFICIAL
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from emi_models.training.scores import Evaluation, Scores

__all__ = ["show_evaluation"]

_SENSES: Final = {"vision": "face", "audio": "voice", "text": "words"}


def show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print scores by emotion, by seconds heard and by modality, and what is published on the same data."""
    line = f"{evaluation.system} on {evaluation.data}; {evaluation.split}; n = {evaluation.n} clips"
    console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)
    if evaluation.task == "emi":
        console.print(_by_emotion(evaluation))
        console.print(_by_seconds(evaluation))
    if evaluation.without:
        console.print(_by_modality(evaluation))
    if evaluation.task == "bah":
        console.print(f"weighted F1 {evaluation.whole.score:.4f}, of every labelled frame's own chunk")
    elif evaluation.published:
        console.print(_published(evaluation))
    else:
        console.print(
            f"The papers' tables are not shown: these clips are not {OFFICIAL}, scores cannot be compared.",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )


def _by_emotion(evaluation: Evaluation) -> Table:
    table = _table("whole clips, 12 s at most", ("Pearson", "CCC", "MSE"))
    whole = evaluation.whole
    for i, emotion in enumerate(EMOTIONS):
        table.add_row(emotion, f"{whole.pearson[i]:.3f}", f"{whole.ccc[i]:.3f}", f"{whole.mse[i]:.4f}")
    means = (sum(column) / len(EMOTIONS) for column in (whole.pearson, whole.ccc, whole.mse))
    rho, ccc, mse = means
    table.add_section()
    table.add_row("mean", f"{rho:.4f}", f"{ccc:.4f}", f"{mse:.4f}", style="bold")
    return table


def _by_seconds(evaluation: Evaluation) -> Table:
    heard = {f"{prefix.seconds:g} s": prefix.scores for prefix in evaluation.prefixes}
    table = _pearson_table("Pearson against seconds heard", heard)
    table.add_row("clips", *(str(prefix.scores.n) for prefix in evaluation.prefixes), style="dim")
    table.add_row("of them cut", *(str(prefix.cut) for prefix in evaluation.prefixes), style="dim")
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
    """A row for each emotion and one for their mean."""
    table = _table(title, tuple(columns))
    for i, emotion in enumerate(EMOTIONS):
        table.add_row(emotion, *(f"{scores.pearson[i]:.3f}" for scores in columns.values()))
    table.add_section()
    table.add_row("mean", *(f"{scores.mean_pearson:.3f}" for scores in columns.values()), style="bold")
    return table


def _published(evaluation: Evaluation) -> Table:
    table = _table(HEADING, ("shown", "valid", "test"))
    table.add_column("source", overflow="fold")
    for row in evaluation.published:
        scores = ("-" if value is None else f"{value:g}" for value in (row.valid, row.test))  # as printed
        table.add_row(row.name, row.modalities, *scores, row.source)
    table.add_section()
    table.add_row(
        f"this {evaluation.system}", "", f"{evaluation.whole.mean_pearson:.3f}", "", evaluation.split
    )
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, min_width=max(map(len, EMOTIONS)))
    for column in columns:
        table.add_column(column, justify="right")
    return table
