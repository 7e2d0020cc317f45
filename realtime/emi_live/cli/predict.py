"""`emi predict`: write a checkpoint's predictions for every clip of a split, as the challenge wants them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from emi_models.checkpoint import read_header
from emi_models.console import printable
from emi_models.files import replacing
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from emi_models.data.clip import ClipSet
    from emi_models.training.predict import Predictions

__all__ = ["app"]

HELP = """Write predictions for every clip of a split, as the challenge wants them.

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

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
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
