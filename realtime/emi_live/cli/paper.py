"""`emi paper`: make a table of one of the four papers from your data, next to the paper's figures."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.bah import is_bah_folder
from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import bad_use, check_data, check_out_folder, complete_system
from emi_live.errors import ConfigurationError
from emi_models import MODALITIES
from emi_models.console import printable
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from emi_models import Modality
    from emi_models.training.rows import Made

__all__ = ["app"]

HELP = """Make a table of one of the four papers from your data, next to the paper's figures.

[bold]Examples[/bold]

  emi paper                                             # all tables
  emi paper taemi --table 3 --data hume
  emi paper two_stage --table 5 --data hume --features dinov2=my_faces --resume
  emi paper semantic_matters --table 1 --data hume --rows text+vision --jobs 2
  emi paper taemi --table 4 --data synth --set training.max_epochs=1
  emi paper taemi --table 3 --data features --train-encoders audio,text
  emi paper semantic_matters --table 4 --data BAH       # after emi convert BAH

Each row is a training, in [bold]--out[/bold]/runs; rows that tables share are trained once.
After Ctrl-C, the same command with [bold]--resume[/bold] continues. Every GPU makes one
row at a time. A row that cannot be made says why.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

BAH_TABLES: Final = {("semantic_matters", number) for number in (4, 5, 6)}
WHAT = "What"
HOW = "How"


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def paper(
    name: Annotated[
        str | None,
        typer.Argument(
            help="taemi, two_stage, dual_stage or semantic_matters; without it, all tables are listed.",
            metavar="[NAME]",
            autocompletion=complete_system,
        ),
    ] = None,
    table: Annotated[
        int | None, typer.Option(help="The table's number in the paper.", metavar="N", rich_help_panel=WHAT)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of clips: Hume-Vidmimic2, or from `emi extract`.",
            metavar="DIR",
            rich_help_panel=WHAT,
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            help="Only rows with this in their name. Repeatable.", metavar="TEXT", rich_help_panel=WHAT
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Your folder for the features that a row calls NAME. Repeatable.",
            metavar="NAME=FOLDER",
            rich_help_panel=WHAT,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Ratings to use in place of the folder's own.", metavar="CSV", rich_help_panel=WHAT
        ),
    ] = None,
    train_encoders: Annotated[
        str | None,
        typer.Option(
            help="Train the encoders of these modalities in each row that has them, e.g. audio,text; the "
            "clips are from emi extract --keep-media.",
            metavar="MODALITY,...",
            rich_help_panel=HOW,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of runs. Default: papers/NAME.", metavar="DIR", rich_help_panel=HOW),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any setting of `emi train`, for all rows. Repeatable.",
            metavar="KEY=VALUE",
            rich_help_panel=HOW,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto: each GPU, or the CPU. Several: cuda:0,cuda:1.",
            metavar="auto|cpu|cuda[:N],…",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    jobs: Annotated[
        int, typer.Option(help="Rows at a time on each device.", min=1, max=64, rich_help_panel=HOW)
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the runs in --out.", rich_help_panel=HOW)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the runs in --out and start again.", rich_help_panel=HOW)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the table as JSON, for scripts.", rich_help_panel=HOW)
    ] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    require("torch", "lightning", "torchmetrics", extra="train", what="emi paper")
    from emi_models.training.tables import find_table, titles

    if name is None:
        for system, number, title in titles():
            typer.echo(f"emi paper {system} --table {number} --data DIR    # {title}")
        return
    if table is None or data is None:
        raise ConfigurationError("give --table N and --data DIR; `emi paper` alone lists all tables")
    with bad_use():
        chosen = find_table(name, table)
    out = out or Path("papers") / name
    check_out_folder("--out", out)
    asked = _pairs(features or ())
    trained = _modalities(train_encoders)
    settings = _settings(set_ or ())
    console = Console(stderr=True)
    if (name, table) in BAH_TABLES and is_bah_folder(data, {"auto": None}, "auto", "--data"):
        _make_bah_table(table, data, out, settings, rows or (), console, force=force, as_json=as_json)
        return
    check_data(data, labels)
    if force:
        shutil.rmtree(out / "runs", ignore_errors=True)
    with bad_use():
        with console.status("loading ..."):
            from emi_models.training.reproduce import make_table
        try:
            made = make_table(
                *chosen,
                data,
                out,
                settings=settings,
                features=asked,
                labels=labels,
                only=rows or (),
                train_encoders=trained,
                devices=_devices(device, jobs),
                resume=resume,
                console=console,
            )
        except KeyboardInterrupt:
            command = ["emi", "paper", name, "--table", str(table), "--data", str(data), "--out", str(out)]
            command += [] if labels is None else ["--labels", str(labels)]
            command += [] if train_encoders is None else ["--train-encoders", train_encoders]
            command += [] if device == "auto" else ["--device", device]
            command += [] if jobs == 1 else ["--jobs", str(jobs)]
            for option, values in (("--rows", rows), ("--features", features), ("--set", set_)):
                command += [word for value in values or () for word in (option, value)]
            line = f"stopped; continue with: {shlex.join([*command, '--resume'])}"
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            raise
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=1))
    else:
        _show(made, Console())
        say(f"wrote {out / f'table-{table}.md'} and .json")
    if any(row.failed for row in made.rows):
        raise typer.Exit(1)


def _make_bah_table(
    number: int,
    data: Path,
    out: Path,
    settings: Mapping[str, Any],
    wanted: Sequence[str],
    console: Console,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Make one of the tables on BAH; a row that was made before is not trained again without `force`."""
    from rich.console import Console as Screen

    from emi_live.cli.bah import bah_table, show_bah_table
    from emi_live.config import validated
    from emi_models.training.bah import find_bah_table
    from emi_models.training.config import TrainConfig

    out = out / f"table-{number}"
    if force:
        shutil.rmtree(out, ignore_errors=True)
    config = validated(TrainConfig, dict(settings))
    with bad_use():
        rows = [
            row.name for row in find_bah_table(number) if not wanted or any(w in row.name for w in wanted)
        ]
        made = bah_table(number, data, out, config=config, rows=rows, console=console)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in made], indent=1))
    else:
        show_bah_table(number, made, Screen())


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """`NAME=FOLDER` options as a mapping."""
    pairs = {}
    for word in given:
        key, equals, folder = word.partition("=")
        if not (key and equals and folder):
            raise ConfigurationError(f"--features {word}: give NAME=FOLDER, for example dinov2=my_faces")
        pairs[key] = folder
    return pairs


def _modalities(given: str | None) -> tuple[Modality, ...]:
    """The modalities of `--train-encoders`."""
    words = [] if given is None else [word.strip() for word in given.split(",") if word.strip()]
    if unknown := [word for word in words if word not in MODALITIES]:
        raise ConfigurationError(
            f"--train-encoders {unknown[0]}: give modalities, such as audio,text; there are "
            + ", ".join(MODALITIES)
        )
    return tuple(modality for modality in MODALITIES if modality in words)


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """`--set` options as the nested settings of a training, checked."""
    from emi_live.config import read_settings, validated
    from emi_models.training.config import TrainConfig

    values = read_settings(given, "training.max_epochs=1")
    validated(TrainConfig, values)
    return values


def _devices(asked: str, jobs: int) -> list[str]:
    """The devices that work, each as often as it has jobs."""
    import torch

    names = asked.split(",")
    if names == ["auto"]:
        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    return names * jobs


def _show(made: Made, console: Console) -> None:
    """Print a line with the paper's figures and one with the user's for each row, and what must be known."""
    from rich.table import Table

    from emi_models.training.rows import THEIRS, YOURS, written

    title = f"{made.paper.title}, Table {made.table.number}: {made.table.title}"
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    columns = made.table.columns
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in made.rows:
        for side, values in ((THEIRS, row.row.published), (YOURS, row.yours)):
            cells = [written(column, value) for column, value in zip(columns, values, strict=True)]
            table.add_row(row.row.name if side == THEIRS else "", side, *cells)
    console.print(table)
    remarks: Mapping[str, str] = {
        row.row.name: f"not made: {row.why}" if row.why else "; ".join(row.notes) for row in made.rows
    }
    lines = [*made.notes, *(f"{name}: {remark}" for name, remark in remarks.items() if remark)]
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
