"""The commands that prepare clips for training.

`emi convert`: read the feature files of a data set once, and report what is in them.
`emi synth`: make a synthetic corpus in the layout of Hume-Vidmimic2, to try training without it.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.bah import BahFeatures, BahWindow, is_bah_folder
from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import (
    bad_use,
    check_data,
    open_data,
)
from emi_live.errors import ConfigurationError
from emi_models.console import printable
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_models.data.feature_files import Converted
    from emi_models.data.synth import SynthCorpus
    from emi_models.data.vidmimic import VidmimicClips

__all__ = ["convert_app", "synth_app"]

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
        typer.Option(help="Folder for converted features. Default: DIR/emi-cache.", metavar="DIR"),
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
    if is_bah_folder(data, {"auto": None, "bah": "bah", "vidmimic": "emi"}, layout, "--layout"):
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
        typer.Option(help="Share of clips without words. Default: 0.0567 in train, 0.0634 in valid."),
    ] = None,
    missing_audio: Annotated[
        float | None, typer.Option(help="Share without a voice. Default: 0.005.")
    ] = None,
    missing_vision: Annotated[float | None, typer.Option(help="Share without a face. Default: 0.01.")] = None,
    raters: Annotated[
        bool,
        typer.Option(
            "--raters", help="1 to 9 people rate each clip; raters.csv says how many, for data.raters."
        ),
    ] = False,
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
            raters=raters,
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
