"""The commands for a trained checkpoint and a folder of clips.

`emi eval`: score a checkpoint on a folder of clips, by emotion, seconds and modality.
`emi predict`: write a checkpoint's predictions for every clip of a split, as the challenge wants them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_live.cli.bah import BahFeatures, is_bah_folder
from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import (
    bad_use,
    check_checkpoint,
    check_data,
    check_new_file,
    check_writable,
    open_data,
    targets_of,
)
from emi_live.errors import ConfigurationError
from emi_models.checkpoint import read_header
from emi_models.console import printable
from emi_models.files import replacing
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from emi_models.data.clip import ClipSet
    from emi_models.training.evaluate import Evaluation
    from emi_models.training.predict import Predictions

__all__ = ["eval_app", "predict_app"]

SCORING: Final = ("torch", "lightning", "torchmetrics")

EVAL_HELP = """Score a checkpoint on a folder of rated clips.

Shows Pearson, CCC and squared error by emotion; Pearson against the seconds of a
clip that are used, and without each modality or with it alone.

[bold]Examples[/bold]

  emi eval --checkpoint runs/taemi/checkpoint.safetensors --data features
  emi eval --checkpoint mine.safetensors --data features --split test
  emi eval --checkpoint mine.safetensors --data features --figure seconds.png
  emi eval --checkpoint mine.safetensors --data features --json - | jq .whole

The clips' features must be those that the checkpoint was trained on. The
papers' tables are shown next to scores on Hume-Vidmimic2, and only there.
"""

eval_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@eval_app.command(help=EVAL_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint from `emi train`.", metavar="FILE")],
    data: Annotated[
        Path, typer.Option(help="Folder of clips: from `emi extract`, or Hume-Vidmimic2.", metavar="DIR")
    ],
    split: Annotated[str, typer.Option(help="train, valid or test.", metavar="NAME")] = "valid",
    json_: Annotated[
        str | None,
        typer.Option("--json", help="Write all numbers as JSON; '-' = standard output.", metavar="FILE|-"),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw Pearson against seconds of the clip.", metavar="FILE.png")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Ratings to use in place of the folder's own.", metavar="CSV")
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(help="In Hume-Vidmimic2's layout: the folder of these features.", metavar="NAME"),
    ] = None,
    audio: Annotated[str | None, typer.Option(help="The same for audio or text.", metavar="NAME")] = None,
    text: Annotated[str | None, typer.Option(help="The same for audio or text.", metavar="NAME")] = None,
    motion: Annotated[
        str | None, typer.Option(help="Action units and head pose next to the faces.", metavar="NAME")
    ] = None,
    features: BahFeatures = None,
    every: Annotated[int, typer.Option(help="BAH: score each n-th labelled frame.", min=1)] = 1,
    device: Annotated[
        str, typer.Option(help="auto takes a GPU if there is one.", metavar="auto|cpu|cuda[:N]")
    ] = "auto",
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    require(*SCORING, *(("matplotlib",) if figure else ()), extra="train", what="emi eval")
    check_checkpoint(checkpoint)
    bah = is_bah_folder(data, {"auto": None}, "auto", "--task")
    if not bah:
        check_data(data, labels)
    if json_ is not None:
        check_writable("--json", json_)
    if figure is not None:
        check_writable("--figure", figure)
    console = Console(stderr=True)
    with bad_use():
        with console.status("loading ..."):
            from emi_models.training.results import show_evaluation
        clips: ClipSet
        if bah:
            from emi_live.cli.bah import BahOptions, header_options, open_bah
            from emi_models.checkpoint import read_header

            asked, spans = header_options(BahOptions(features=features, every=every), read_header(checkpoint))
            clips = open_bah(data, asked, spans)
        else:
            options = {"labels": labels, "vision": vision, "audio": audio, "text": text, "motion": motion}
            clips = open_data(data, console, options | targets_of(checkpoint))
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
    from emi_models.training.results import draw_prefixes

    if not found.prefixes:
        raise ConfigurationError("BAH's chunks are too short for a figure; leave out --figure")
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


PREDICT_HELP = """Write predictions for every clip of a split, as the challenge wants them.

[bold]Examples[/bold]

  emi predict --checkpoint runs/sm/checkpoint.safetensors --data hume --out predictions.csv
  emi predict --checkpoint runs/a/checkpoint.safetensors --checkpoint runs/b/checkpoint.safetensors
      --data hume --out mean_of_two.csv
  emi predict --checkpoint runs/sm/checkpoint.safetensors --data hume --split valid --out valid.csv
  emi predict --checkpoint runs/bah/checkpoint.safetensors --data BAH --level video --out videos.csv

The file has Hume-Vidmimic2's own header, one line a clip, and values in [0, 1].
Several checkpoints are averaged. If the split is rated, the score is printed.
With a checkpoint of BAH: the probability of ambivalence for each frame or video.
"""

predict_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@predict_app.command(help=PREDICT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def predict(
    checkpoint: Annotated[
        list[Path], typer.Option(help="From `emi train`. Repeat it to average several.", metavar="FILE")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of clips: from `emi extract`, or Hume-Vidmimic2.", metavar="DIR")
    ],
    out: Annotated[str, typer.Option(help="The CSV to write; '-' = standard output.", metavar="FILE|-")],
    split: Annotated[str, typer.Option(help="train, valid or test.", metavar="NAME")] = "test",
    labels: Annotated[
        Path | None, typer.Option(help="Ratings to use in place of the folder's own.", metavar="CSV")
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(help="In Hume-Vidmimic2's layout: the folder of these features.", metavar="NAME"),
    ] = None,
    audio: Annotated[str | None, typer.Option(help="The same for audio or text.", metavar="NAME")] = None,
    text: Annotated[str | None, typer.Option(help="The same for audio or text.", metavar="NAME")] = None,
    motion: Annotated[
        str | None, typer.Option(help="Action units and head pose next to the faces.", metavar="NAME")
    ] = None,
    level: Annotated[
        str, typer.Option(help="BAH: a line a frame or a video.", metavar="frame|video")
    ] = "frame",
    features: Annotated[
        str | None, typer.Option(help="BAH: folder of `emi extract`, or 'none'.", metavar="DIR")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto takes a GPU if there is one.", metavar="auto|cpu|cuda[:N]")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    require("torch", "torchmetrics", extra="train", what="emi predict")
    for path in checkpoint:
        check_checkpoint(path)
    check_writable("--out", out)
    check_new_file("--out", out, force, "--force to replace it, or name another file")
    console = Console(stderr=True)
    if any(read_header(path).task == "bah" for path in checkpoint):
        from emi_live.cli.bah import BahOptions, predict_bah_files

        asked = BahOptions(features=features)
        with bad_use():
            predict_bah_files(
                checkpoint, data, out, console, split=split, level=level, device=device, options=asked
            )
        return
    check_data(data, labels)
    with bad_use():
        options = {"labels": labels, "vision": vision, "audio": audio, "text": text, "motion": motion}
        clips = open_data(data, console, options | targets_of(checkpoint[0]))
        found = _predicted(checkpoint, clips, split, device, console)
    _tell(console, found, clips.description, split, len(checkpoint))
    if out == "-":
        typer.echo(found.csv(), nl=False)
        return
    with replacing(Path(out)) as part:
        part.write_text(found.csv(), encoding="utf-8")
    say(f"wrote {len(found.ids)} clips to {out}")


def _predicted(
    checkpoints: Sequence[Path], clips: ClipSet, split: str, device: str, console: Console
) -> Predictions:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from emi_models.training.predict import predict_split

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("clips", total=len(clips.ids(split)) or None)
        return predict_split(
            checkpoints, clips, split, device=device, advance=lambda done: progress.advance(task, done)
        )


def _tell(console: Console, found: Predictions, description: str, split: str, count: int) -> None:
    lines = [f"{description}; {split}, {len(found.ids)} clips; mean of {count} checkpoints"]
    lines += [f"{clips} clips have no {modality}" for modality, clips in found.absent.items()]
    if found.scores is not None:
        rated = found.scores
        lines.append(
            f"mean Pearson {rated.mean_pearson:.4f} on the {rated.n} rated clips of {split}, clipped"
        )
    for line in lines:
        console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)
