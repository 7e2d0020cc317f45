"""`emi eval`: how good a checkpoint is on a folder of clips, by emotion, seconds heard and modality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emi_live.cli.clips import bad_use, check_data, open_data, training_installed
from emi_live.cli.errors import DebugOption
from emi_live.cli.preflight import check_checkpoint, check_writable
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from emi_models.data.clip import ClipSet
    from emi_models.training.evaluate import Evaluation

__all__ = ["app"]

HELP = """Say how good a checkpoint is on a folder of rated clips.

Pearson, CCC and squared error by emotion; Pearson against the seconds that
were heard, and with each modality taken away or alone.

[bold]Examples[/bold]

  emi eval --checkpoint runs/taemi/checkpoint.safetensors --data features
  emi eval --checkpoint mine.safetensors --data features --split test
  emi eval --checkpoint mine.safetensors --data features --figure heard.png
  emi eval --checkpoint mine.safetensors --data features --json - | jq .whole

The clips' features must be those that the checkpoint was trained on. The
papers' tables are shown beside scores on Hume-Vidmimic2, and only there.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="What `emi train` has saved.", metavar="FILE")],
    data: Annotated[
        Path, typer.Option(help="Folder of clips, as `emi extract` writes or Hume-Vidmimic2.", metavar="DIR")
    ],
    split: Annotated[str, typer.Option(help="train, valid or test.", metavar="NAME")] = "valid",
    json_: Annotated[
        str | None,
        typer.Option("--json", help="Write all numbers as JSON; '-' = standard output.", metavar="FILE|-"),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw Pearson against seconds heard.", metavar="FILE.png")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Ratings that count in place of the folder's own.", metavar="CSV")
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(help="In Hume-Vidmimic2's layout: the folder of these features.", metavar="NAME"),
    ] = None,
    audio: Annotated[str | None, typer.Option(help="Likewise.", metavar="NAME")] = None,
    text: Annotated[str | None, typer.Option(help="Likewise.", metavar="NAME")] = None,
    device: Annotated[
        str, typer.Option(help="auto takes a GPU if there is one.", metavar="auto|cpu|cuda[:N]")
    ] = "auto",
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    check_checkpoint(checkpoint)
    check_data(data, labels)
    if json_ is not None:
        check_writable("--json", json_)
    if figure is not None:
        check_writable("--figure", figure)
    console = Console(stderr=True)
    with bad_use(), training_installed():
        with console.status("loading ..."):
            from emi_models.training.report import show_evaluation
        clips = open_data(data, console, {"labels": labels, "vision": vision, "audio": audio, "text": text})
        found = _evaluated(checkpoint, clips, split, device, console)
        show_evaluation(found, console if json_ == "-" else Console())
        if figure is not None:
            _draw(figure, found)
    if json_ is not None:
        _write_json(json_, found)


def _evaluated(checkpoint: Path, clips: ClipSet, split: str, device: str, console: Console) -> Evaluation:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from emi_models.training.evaluate import evaluate_checkpoint

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("clips", total=len(clips.ids(split)) or None)
        return evaluate_checkpoint(
            checkpoint, clips, split, device=device, advance=lambda done: progress.advance(task, done)
        )


def _draw(figure: Path, found: Evaluation) -> None:
    from emi_models.training.report import draw_prefixes

    if not found.prefixes:
        raise ConfigurationError("BAH's chunks have no seconds to be heard; leave out --figure")
    draw_prefixes(figure, found)


def _write_json(where: str, found: Evaluation) -> None:
    text = json.dumps(found.to_json(), indent=1, allow_nan=False)
    if where == "-":
        typer.echo(text)
        return
    try:
        Path(where).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be written: {error.strerror}; name another file") from error
