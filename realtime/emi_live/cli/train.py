"""`emi train`: train one of the published systems on a folder of clips, into a checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.bah import BahFeatures, BahWindow, is_bah_folder
from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import (
    SYSTEMS,
    bad_use,
    check_data,
    check_out_folder,
    complete_system,
    open_data,
)
from emi_live.errors import ConfigurationError
from emi_models.console import printable
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.libraries import EXPORT, require

if TYPE_CHECKING:
    from rich.console import Console

    from emi_models.data.clip import ClipSet
    from emi_models.training.config import TrainConfig
    from emi_models.training.fit import FitResult

__all__ = ["train_app"]

TRAINING: Final = ("torch", "lightning", "torchmetrics")

TRAIN_HELP = """Train one of the published systems on a folder of clips.

[bold]Examples[/bold]

  emi train --system taemi --data features --out runs/taemi
  emi train --system taemi --data features --out runs/taemi --resume
  emi train --system two_stage --data hume --text gte --out runs/two_stage
  emi train --system taemi --data features --out runs/tuned --train-encoders audio,text
  emi train --system semantic_matters --data features --out runs/sm --seed 1
      --set training.max_epochs=5 --set network.fusion=multitask

[bold]--data[/bold] is what [bold]emi extract[/bold] wrote, or Hume-Vidmimic2 as participants have it.
Settings that you do not give are those of the paper. Ctrl-C loses only the
current epoch: the same command with [bold]--resume[/bold] continues from there.
"""

train_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

WHAT = "What to train on"
HOW = "How"


@train_app.command(help=TRAIN_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def train(
    data: Annotated[Path, typer.Option(help="Folder of clips.", rich_help_panel=WHAT, metavar="DIR")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for this run: checkpoint, curves, a CSV for each stage.",
            rich_help_panel=HOW,
            metavar="DIR",
        ),
    ],
    system: Annotated[
        str | None,
        typer.Option(
            help="taemi, two_stage, dual_stage or semantic_matters, which is the one for BAH.",
            rich_help_panel=HOW,
            metavar="NAME",
            autocompletion=complete_system,
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="emi: intensities; bah: ambivalence; auto: bah for BAH's layout.",
            rich_help_panel=WHAT,
            metavar="auto|emi|bah",
        ),
    ] = "auto",
    features: BahFeatures = None,
    window: BahWindow = None,
    every: Annotated[
        int, typer.Option(help="BAH: train on each n-th labelled frame.", rich_help_panel=WHAT, min=1)
    ] = 1,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Ratings to use in place of the folder's own.", rich_help_panel=WHAT, metavar="CSV"
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="What to estimate instead of the six emotions: some of them, or columns of --labels, with "
            "their ranges where they are not 0..1, e.g. arousal:-1..1,valence:-1..1,joy.",
            rich_help_panel=WHAT,
            metavar="NAME[:LOW..HIGH],...",
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
    audio: Annotated[
        str | None, typer.Option(help="The same for audio or text.", rich_help_panel=WHAT, metavar="NAME")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The same for audio or text.", rich_help_panel=WHAT, metavar="NAME")
    ] = None,
    motion: Annotated[
        str | None,
        typer.Option(
            help="Action units and head pose next to the faces: a folder, also of OpenFace's CSVs.",
            rich_help_panel=WHAT,
            metavar="NAME",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Make each clip relative to its person's neutral, as `emi-live --baseline` does.",
            rich_help_panel=WHAT,
            metavar="off|running|calibrate",
        ),
    ] = None,
    train_encoders: Annotated[
        str | None,
        typer.Option(
            help="Train the encoders of these modalities with the network, e.g. audio,text; the clips need "
            "the media that emi extract --keep-media keeps.",
            rich_help_panel=HOW,
            metavar="MODALITY,...",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any setting of training, data, network or encoders, e.g. training.max_epochs=1, "
            "training.stages.align.learning_rate=1e-4, network.dropout=0.2. Repeatable.",
            rich_help_panel=HOW,
            metavar="KEY=VALUE",
        ),
    ] = None,
    use: Annotated[
        str | None,
        typer.Option(
            help="Sets data.use: also train on valid clips, on all of them or all but a fifth of all clips.",
            metavar="train|4:1|train+valid",
            rich_help_panel=WHAT,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="As training.seed.", rich_help_panel=HOW)] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Sets training.device; auto takes a GPU if there is one.",
            metavar="auto|cpu|cuda[:N]",
            rich_help_panel=HOW,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out.", rich_help_panel=HOW),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Delete the run in --out and start again.", rich_help_panel=HOW),
    ] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    options = {"labels": labels, "vision": vision, "audio": audio, "text": text, "motion": motion}
    options |= {"baseline": None if baseline == "off" else baseline}
    overrides = {"seed": seed, "device": device}
    given = {name: value for name, value in overrides.items() if value is not None}
    config = _config(set_ or (), given, use, train_encoders)
    bah = is_bah_folder(data, {"auto": None, "bah": "bah", "emi": "emi"}, task, "--task")
    if system is None:
        if not bah:
            raise ConfigurationError(f"give --system, one of {', '.join(SYSTEMS)}")
        system = "semantic_matters"
    _check_system(system)
    require(*TRAINING, *EXPORT, extra="train", what="emi train")
    if not bah:
        check_data(data, labels)
    check_out_folder("--out", out)
    console = Console(stderr=True)
    with bad_use():
        with console.status("loading ..."):  # Lightning alone takes seconds
            from emi_models.training.fit import fit
        clips: ClipSet
        if bah:
            from emi_live.cli.bah import BahOptions, open_bah

            clips = open_bah(data, BahOptions(features=features, window=window, every=every))
        else:
            clips = open_data(data, console, options | _targets_option(targets))
        try:
            result = fit(system, clips, out, config, resume=resume, force=force, console=console)
        except KeyboardInterrupt:
            asked: dict[str, Any] = {"system": system, "data": data, "out": out, "targets": targets}
            if bah:
                asked |= {"task": "bah", "features": features, "window": window, "every": str(every)}
            asked |= {**options, "use": use, "set": set_, **overrides, "train-encoders": train_encoders}
            line = f"stopped; continue with: {_resume_command(asked)}"
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            raise
        exported = _export(result)
    _tell_what_next(console, result, data, options, exported)


def _targets_option(text: str | None) -> dict[str, Any]:
    """What `--targets` names, as an option of `open_clips`."""
    from emi_models.targets import parse_target_list

    return {} if text is None else {"targets": parse_target_list(text)}


def _check_system(system: str) -> None:
    """Refuse an unknown system before the recipes are loaded."""
    if system not in SYSTEMS:
        raise ConfigurationError(f"no system is called {system!r}; there are: {', '.join(SYSTEMS)}")


def _config(
    settings: list[str] | tuple[str, ...],
    overrides: dict[str, Any],
    use: str | None = None,
    encoders: str | None = None,
) -> TrainConfig:
    from emi_live.config import read_settings, validated
    from emi_models.training.config import TrainConfig

    values = read_settings(settings, "training.max_epochs=1")
    section = values.setdefault("training", {})
    if isinstance(section, dict):  # otherwise it is wrong, and `validated` reports it
        section |= overrides
    data = values.setdefault("data", {})
    if use is not None and isinstance(data, dict):
        data["use"] = use
    if encoders is not None:
        named = values.setdefault("encoders", {})
        if isinstance(named, dict):
            named["train"] = [name.strip() for name in encoders.split(",") if name.strip()]
    return validated(TrainConfig, values)


def _resume_command(asked: dict[str, Any]) -> str:
    """The command that continues the run."""
    words = ["emi", "train"]
    for name, value in asked.items():
        for each in value if isinstance(value, list) else [value]:
            words += [] if each is None else [f"--{name}", str(each)]
    return shlex.join([*words, "--resume"])


def _export(result: FitResult) -> Path | None:
    """Write the ONNX of a checkpoint for `compact` next to it, so that live use needs no PyTorch.

    None: it was trained on other encoders, which need PyTorch themselves.
    """
    from emi_engine.onnx_export import export_beside
    from emi_models.checkpoint import read_header

    header = read_header(result.checkpoint)
    if any(COMPACT_ENCODERS.get(name) != encoder for name, encoder in header.encoders.items()):
        return None
    return export_beside(result.checkpoint)


def _tell_what_next(
    console: Console, result: FitResult, data: Path, options: dict[str, Any], exported: Path | None
) -> None:
    say(f"saved {result.checkpoint}" + (f" and {exported.name}, to run without PyTorch" if exported else ""))
    words = ["emi", "eval", "--checkpoint", str(result.checkpoint), "--data", str(data)]
    own = {name: value for name, value in options.items() if name != "baseline"}  # the checkpoint says it
    words += [word for name, value in own.items() if value for word in (f"--{name}", str(value))]
    evaluate = shlex.join(words)
    for line in (f"try: {evaluate}", f"learning curves: {result.checkpoint.with_name('curves.png')}"):
        console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)
