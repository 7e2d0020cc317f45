"""The commands for folders of clips: prepare them, train on them, evaluate on them.

`emi convert`: read the feature files of a data set once, and report what is in them.
`emi synth`: make a synthetic corpus in the layout of Hume-Vidmimic2, to try training without it.
`emi train`: train one of the published systems on a folder of clips, into a checkpoint.
`emi eval`: score a checkpoint on a folder of clips, by emotion, seconds and modality.
"""

from __future__ import annotations

import json
import logging
import shlex
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import (
    SYSTEMS,
    bad_use,
    check_checkpoint,
    check_data,
    check_out_folder,
    check_writable,
    complete_system,
    open_data,
    targets_of,
)
from emi_live.errors import ConfigurationError
from emi_models.console import printable
from emi_models.encoders import COMPACT_ENCODERS
from emi_models.libraries import EXPORT, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_models.data.clip import ClipSet
    from emi_models.data.feature_files import Converted
    from emi_models.data.synth import SynthCorpus
    from emi_models.data.vidmimic import VidmimicClips
    from emi_models.training.config import TrainConfig
    from emi_models.training.evaluate import Evaluation
    from emi_models.training.fit import FitResult

__all__ = ["convert_app", "eval_app", "synth_app", "train_app"]

TRAINING: Final = ("torch", "lightning", "torchmetrics")

CONVERT_HELP = """Read Hume-Vidmimic2's feature files once, and report what is in them.

[bold]Examples[/bold]

  emi convert data
  emi convert data --vision googlevit --text gte
  emi convert data --vision none --cache /fast/disk/cache
  emi convert data --json | jq .modalities.vision.refused
  emi convert BAH --features bah-features   (reads BAH's layout, embeds its words)

The files are pickles. Loaded in the usual way, they can run programs. Here
only arrays and tensors are read; a file that contains more is left
out and listed, like any bad file. `emi train` also converts what it needs.
After Ctrl-C, the same command continues.
"""
SHOWN: Final = 20  # refused files listed on the terminal
RATE_APART: Final = 1.2  # a warning is given from this ratio of faces a second to the assumed rate on

convert_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

BahFeatures = Annotated[
    str | None,
    typer.Option(
        help="BAH: folder of `emi extract --seconds 0`, or 'none' for words alone. [default: as converted]",
        metavar="DIR",
    ),
]
BahWindow = Annotated[
    str | None,
    typer.Option(
        help="BAH: centred, as the paper, or causal, for live use. [default: centred]",
        metavar="centred|causal",
    ),
]


def _is_bah(data: Path, choices: dict[str, str | None], asked: str, option: str) -> bool:
    """Whether the folder is to be read as BAH: as an option says, else by what is in it.

    Raises:
        ConfigurationError: the option has no such value, or the folder is no BAH.
    """
    from emi_models.data.bah import is_bah

    if asked not in choices:
        raise ConfigurationError(f"{option} {asked}: choose one of {', '.join(choices)}")
    wanted, found = choices[asked], data.is_dir() and is_bah(data)
    if wanted == "bah" and not found:
        raise ConfigurationError(
            f"{data} has neither BAH's splits nor its annotations; name the folder with default-split or "
            "dataset-splits"
        )
    return found if wanted is None else wanted == "bah"


FeaturesOption = Annotated[
    str | None,
    typer.Option(help="A folder of features, or one file for all clips, or 'none'.", metavar="NAME"),
]


@convert_app.command(help=CONVERT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def convert(
    data: Annotated[Path, typer.Argument(help="Folder with train_split.csv.", metavar="DIR")],
    vision: FeaturesOption = None,
    audio: FeaturesOption = None,
    text: FeaturesOption = None,
    motion: FeaturesOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for converted features. [default: DIR/emi-cache]", metavar="DIR"),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="auto looks for BAH's files.", metavar="auto|vidmimic|bah")
    ] = "auto",
    features: BahFeatures = None,
    window: BahWindow = None,
    config: Annotated[
        str | None,
        typer.Option(help="BAH: preset or TOML that names the text encoder.", metavar="NAME|FILE"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="BAH: any setting of it.", metavar="KEY=VALUE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    require("torch", extra="train", what="emi convert")
    console = Console(stderr=True)
    if _is_bah(data, {"auto": None, "bah": "bah", "vidmimic": "emi"}, layout, "--layout"):
        with bad_use():
            from emi_live.cli.bah import BahOptions, convert_bah

            asked = BahOptions(
                features=features, window=window, config=config, set_=tuple(set_ or ()), cache=cache
            )
            convert_bah(data, asked, console, as_json=as_json)
        return
    check_data(data)
    with bad_use(), _unlogged("emi_models.data.vidmimic"):  # its log messages are listed below
        from emi_models.data.vidmimic import VidmimicClips

        options = {"vision": vision, "audio": audio, "text": text, "motion": motion, "cache": cache}
        clips = open_data(data, console, options)
        if not isinstance(clips, VidmimicClips):
            raise ConfigurationError(f"{data} already has emi-live's own layout; train on it directly")
        summary = _summary(clips)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    _show(summary, console)


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    """Silence a logger."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logging.getLogger(name).addFilter(nothing)
    try:
        yield
    finally:
        logging.getLogger(name).removeFilter(nothing)


def _summary(clips: VidmimicClips) -> dict[str, Any]:
    """The whole summary, for JSON."""
    counts = {split: len(clips.ids(split)) for split in ("train", "valid", "test")}
    faces_hz = clips.faces_hz()
    features: dict[str, Converted] = {str(modality): found for modality, found in clips.features.items()}
    if clips.motion is not None:
        features["motion"] = clips.motion
    return {
        "clips": counts,
        "modalities": {
            modality: {
                "source": clips.sources[modality],
                "width": found.dim,
                "clips": len(found),
                "frames": found.frames,
                "dropped_frames": found.dropped,
                "refused": found.refused,
            }
            for modality, found in features.items()
        },
        "faces_per_second": None if faces_hz is None else round(faces_hz, 3),
        "assumed_faces_per_second": clips.assumed_faces_hz,
    }


def _show(summary: dict[str, Any], console: Console) -> None:
    """Print a line for each modality, then the warnings."""
    total = sum(summary["clips"].values())
    say(f"{total} clips: " + ", ".join(f"{count} {split}" for split, count in summary["clips"].items()))
    for modality, found in summary["modalities"].items():
        line = f"{modality}: {found['source']}, {found['clips']} clips, {found['frames']} frames"
        say(f"{line} of {found['width']} values, {total - found['clips']} clips without")
    warnings = [
        f"{found['dropped_frames']} frames of {found['source']} are NaN or infinite somewhere, and left out"
        for found in summary["modalities"].values()
        if found["dropped_frames"]
    ]
    seen, assumed = summary["faces_per_second"], summary["assumed_faces_per_second"]
    if seen is not None and not 1 / RATE_APART < seen / assumed < RATE_APART:
        warnings.append(
            f"a second of voice has {seen:.1f} faces, but {assumed:g} are assumed; "
            'if that is wrong, write {"vision_hz": …} into dataset.json'
        )
    refused = [reason for found in summary["modalities"].values() for reason in found["refused"].values()]
    warnings += [f"left out: {reason}" for reason in refused[:SHOWN]]
    if len(refused) > SHOWN:
        warnings.append(f"… and {len(refused) - SHOWN} more are left out; --json lists them all")
    for warning in warnings:
        console.print(printable(warning), style="yellow", markup=False, highlight=False, soft_wrap=True)


class Sizes(StrEnum):
    """Widths and rates of the features."""

    small = "small"
    official = "official"


synth_app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Make a synthetic corpus in the layout of Hume-Vidmimic2, to try training without it.",
)


@synth_app.callback(invoke_without_command=True)
def synth(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    clips: Annotated[int, typer.Option(help="Number of clips; the data set has 12660 rated ones.")] = 4000,
    seed: Annotated[int, typer.Option(help="The same seed and settings make the same files.")] = 0,
    sizes: Annotated[
        Sizes, typer.Option(help="small: trains on two cores; official: 384/768/768 values, sound at 50 Hz.")
    ] = Sizes.small,
    missing_text: Annotated[
        float | None,
        typer.Option(help="Share of clips without words. [default: 0.0567 in train, 0.0634 in valid]"),
    ] = None,
    missing_audio: Annotated[
        float | None, typer.Option(help="Share without a voice. [default: 0.005]")
    ] = None,
    missing_vision: Annotated[
        float | None, typer.Option(help="Share without a face. [default: 0.01]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing synthetic corpus.")] = False,
    debug: DebugOption = False,
) -> None:
    """Make a synthetic corpus in the layout of Hume-Vidmimic2, with the true values of each clip.

    It contains no person: it shows whether training works, and nothing about people.

    For example: [bold]emi synth --clips 4000 --out synth && emi train --data synth …[/bold]
    """
    require("torch", extra="train", what="emi synth")
    from emi_models.data.synth import OFFICIAL_SIZES, SMALL_SIZES, SynthConfig, SynthCorpus, SynthError

    shares: dict[str, Any] = {
        "missing_text_train": missing_text,
        "missing_text_valid": missing_text,
        "missing_audio": missing_audio,
        "missing_vision": missing_vision,
    }
    try:
        config = SynthConfig(
            clips=clips,
            seed=seed,
            sizes=OFFICIAL_SIZES if sizes is Sizes.official else SMALL_SIZES,
            **{name: share for name, share in shares.items() if share is not None},
        )
        _write_corpus(SynthCorpus(config), out, force)
    except SynthError as error:
        raise ConfigurationError(str(error)) from error


def _write_corpus(corpus: SynthCorpus, out: Path, force: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from emi_models.data.synth import NOTICE, expected_bytes, write_corpus

    clips = corpus.config.clips
    console = Console(stderr=True)
    console.print(f"{clips} clips, about {expected_bytes(corpus) / 1e6:.1f} MB", highlight=False)
    columns = (TextColumn("make clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=clips)
        written = write_corpus(corpus, out, lambda done: progress.update(task, completed=done), replace=force)
    counts = ", ".join(f"{len(corpus.ids(split))} {split}" for split in ("train", "valid"))
    say(f"wrote {clips} clips ({counts}), {written / 1e6:.1f} MB, to {out}")
    say(NOTICE)


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
    overrides = {"seed": seed, "device": device}
    given = {name: value for name, value in overrides.items() if value is not None}
    config = _config(set_ or (), given, use, train_encoders)
    bah = _is_bah(data, {"auto": None, "bah": "bah", "emi": "emi"}, task, "--task")
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
    words += [word for name, value in options.items() if value for word in (f"--{name}", str(value))]
    evaluate = shlex.join(words)
    for line in (f"try: {evaluate}", f"learning curves: {result.checkpoint.with_name('curves.png')}"):
        console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)


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

    require(*TRAINING, *(("matplotlib",) if figure else ()), extra="train", what="emi eval")
    check_checkpoint(checkpoint)
    bah = _is_bah(data, {"auto": None}, "auto", "--task")
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
