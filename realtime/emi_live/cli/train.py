"""The commands that train and evaluate systems on a folder of clips.

`emi train`: train one of the published systems on a folder of clips, into a checkpoint.
`emi eval`: how good a checkpoint is on a folder of clips, by emotion, seconds seen and modality.
"""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.complete import SYSTEMS, complete_system
from emi_live.cli.data import bad_use, check_data, open_data
from emi_live.cli.errors import DebugOption
from emi_live.cli.preflight import check_checkpoint, check_out_folder, check_writable
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_models.data.clip import ClipSet
    from emi_models.training.config import TrainConfig
    from emi_models.training.evaluate import Evaluation
    from emi_models.training.fit import FitResult

__all__ = ["eval_app", "train_app"]

EXTRA: Final = frozenset({"lightning", "matplotlib", "torchmetrics"})

TRAIN_HELP = """Train one of the published systems on a folder of clips.

[bold]Examples[/bold]

  emi train --system taemi --data features --out runs/taemi
  emi train --system taemi --data features --out runs/taemi --resume
  emi train --system two_stage --data hume --text gte --out runs/two_stage
  emi train --system semantic_matters --data features --out runs/sm --seed 1
      --set training.max_epochs=5 --set network.fusion=multitask

[bold]--data[/bold] is what [bold]emi extract[/bold] wrote, or Hume-Vidmimic2 as participants have it.
Settings that are not given are the paper's. Ctrl-C loses no more than the
epoch under way: the same command with [bold]--resume[/bold] goes on from there.
"""

train_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

WHAT = "What to train on"
HOW = "How"


@train_app.command(help=TRAIN_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def train(
    data: Annotated[Path, typer.Option(help="Folder of clips.", rich_help_panel=WHAT, metavar="DIR")],
    system: Annotated[
        str,
        typer.Option(
            help="taemi, two_stage, dual_stage or semantic_matters.",
            rich_help_panel=HOW,
            metavar="NAME",
            autocompletion=complete_system,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of this run: checkpoint, curves, a CSV for each stage.",
            rich_help_panel=HOW,
            metavar="DIR",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Ratings that count in place of the folder's own.", rich_help_panel=WHAT, metavar="CSV"
        ),
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(
            help="In Hume-Vidmimic2's layout: the folder of these features, or 'none'.",
            rich_help_panel=WHAT,
            metavar="NAME",
        ),
    ] = None,
    audio: Annotated[str | None, typer.Option(help="Likewise.", rich_help_panel=WHAT, metavar="NAME")] = None,
    text: Annotated[str | None, typer.Option(help="Likewise.", rich_help_panel=WHAT, metavar="NAME")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any setting of training, data or network, e.g. training.max_epochs=1, "
            "training.stages.align.learning_rate=1e-4, network.dropout=0.2. Repeatable.",
            rich_help_panel=HOW,
            metavar="KEY=VALUE",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="As training.seed.", rich_help_panel=HOW)] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="As training.device: auto takes a GPU if there is one.",
            metavar="auto|cpu|cuda[:N]",
            rich_help_panel=HOW,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=HOW),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Throw away the run in --out.", rich_help_panel=HOW),
    ] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    options = {"labels": labels, "vision": vision, "audio": audio, "text": text}
    overrides = {"seed": seed, "device": device}
    config = _config(set_ or (), {name: value for name, value in overrides.items() if value is not None})
    _check_system(system)
    check_data(data, labels)
    check_out_folder("--out", out)
    console = Console(stderr=True)
    with bad_use(), training_installed():
        with console.status("loading ..."):  # Lightning alone takes seconds
            from emi_models.training.fit import fit
        clips = open_data(data, console, options)
        try:
            result = fit(system, clips, out, config, resume=resume, force=force, console=console)
        except KeyboardInterrupt:
            asked = {"system": system, "data": data, "out": out, **options, "set": set_, **overrides}
            again = _resume_command(asked)
            console.print(f"stopped; go on with: {again}", markup=False, highlight=False, soft_wrap=True)
            raise
    _tell_what_next(console, result, data)


def _check_system(system: str) -> None:
    """Refuse a system that there is not, before the recipes are loaded."""
    if system not in SYSTEMS:
        raise ConfigurationError(f"no system is called {system!r}; there are: {', '.join(SYSTEMS)}")


def _config(settings: list[str] | tuple[str, ...], overrides: dict[str, Any]) -> TrainConfig:
    from emi_live.config import read_settings, validated
    from emi_models.training.config import TrainConfig

    values = read_settings(settings, "training.max_epochs=1")
    section = values.setdefault("training", {})
    if isinstance(section, dict):  # else it is wrong, and is told so
        section |= overrides
    return validated(TrainConfig, values)


def _resume_command(asked: dict[str, Any]) -> str:
    """What to type to go on."""
    words = ["emi", "train"]
    for name, value in asked.items():
        for each in value if isinstance(value, list) else [value]:
            words += [] if each is None else [f"--{name}", str(each)]
    return shlex.join([*words, "--resume"])


def _tell_what_next(console: Console, result: FitResult, data: Path) -> None:
    typer.echo(f"saved {result.checkpoint}")
    evaluate = shlex.join(["emi", "eval", "--checkpoint", str(result.checkpoint), "--data", str(data)])
    for line in (f"try: {evaluate}", f"learning curves: {result.checkpoint.with_name('curves.png')}"):
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


EVAL_HELP = """Say how good a checkpoint is on a folder of rated clips.

Pearson, CCC and squared error by emotion; Pearson against the seconds that
were heard, and with each modality taken away or alone.

[bold]Examples[/bold]

  emi eval --checkpoint runs/taemi/checkpoint.safetensors --data features
  emi eval --checkpoint mine.safetensors --data features --split test
  emi eval --checkpoint mine.safetensors --data features --figure heard.png
  emi eval --checkpoint mine.safetensors --data features --json - | jq .whole

The clips' features must be those that the checkpoint was trained on. The
papers' tables are shown next to scores on Hume-Vidmimic2, and only there.
"""

eval_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@eval_app.command(help=EVAL_HELP, context_settings={"help_option_names": ["-h", "--help"]})
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
        Path | None, typer.Option(help="Draw Pearson against seconds shown.", metavar="FILE.png")
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
            from emi_models.training.results import show_evaluation
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
    from emi_models.training.results import draw_prefixes

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


@contextmanager
def training_installed() -> Iterator[None]:
    """Turn an import that fails for lack of the extra `train` into what to install.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA:
            raise
        raise ConfigurationError(f'{package} is not installed; install "emi-live[train]"') from error
