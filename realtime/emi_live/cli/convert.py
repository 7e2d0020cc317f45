"""`emi convert`: read other people's feature files once, and say what is in them."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.clips import bad_use, check_data, open_data
from emi_live.cli.errors import DebugOption
from emi_live.errors import ConfigurationError
from emi_models.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_models.data.vidmimic import VidmimicClips

__all__ = ["app"]

HELP = """Read Hume-Vidmimic2's feature files once, and say what is in them.

[bold]Examples[/bold]

  emi convert data
  emi convert data --vision googlevit --text gte
  emi convert data --vision none --cache /fast/disk/cache
  emi convert data --json | jq .modalities.vision.refused

The files are pickles, which run programs when they are loaded as usual. Here
only arrays and tensors come out of them; a file that asks for more is left
out, like any bad one, and listed. `emi train` converts too what it needs;
after Ctrl-C both go on where they were.
"""
SHOWN: Final = 20  # refused files listed on the terminal
RATE_APART: Final = 1.2  # faces in a second against what is assumed, from which it is worth a word

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

FeaturesOption = Annotated[
    str | None, typer.Option(help="A folder of features or a file of all clips; or 'none'.", metavar="NAME")
]


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def convert(
    data: Annotated[Path, typer.Argument(help="Folder with train_split.csv.", metavar="DIR")],
    vision: FeaturesOption = None,
    audio: FeaturesOption = None,
    text: FeaturesOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where converted features are kept. [default: DIR/emi-cache]", metavar="DIR"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON, for scripts.")] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    check_data(data)
    console = Console(stderr=True)
    with bad_use(), _unlogged("emi_models.data.vidmimic"):  # what it would log is listed below
        from emi_models.data.vidmimic import VidmimicClips

        options = {"vision": vision, "audio": audio, "text": text, "cache": cache}
        clips = open_data(data, console, options)
        if not isinstance(clips, VidmimicClips):
            raise ConfigurationError(f"{data} has emi-live's own layout already; train on it as it is")
        story = _story(clips)
    if as_json:
        typer.echo(json.dumps(story, indent=2))
        return
    _show(story, console)


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    """Let a logger say nothing."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logging.getLogger(name).addFilter(nothing)
    try:
        yield
    finally:
        logging.getLogger(name).removeFilter(nothing)


def _story(clips: VidmimicClips) -> dict[str, Any]:
    """All that is said, as JSON can hold it."""
    counts = {split: len(clips.ids(split)) for split in ("train", "valid", "test")}
    faces_hz = clips.faces_hz()
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
            for modality, found in clips.features.items()
        },
        "faces_per_second": None if faces_hz is None else round(faces_hz, 3),
        "assumed_faces_per_second": clips.assumed_faces_hz,
    }


def _show(story: dict[str, Any], console: Console) -> None:
    """A line for each modality, then what is odd."""
    total = sum(story["clips"].values())
    typer.echo(f"{total} clips: " + ", ".join(f"{count} {split}" for split, count in story["clips"].items()))
    for modality, found in story["modalities"].items():
        line = f"{modality}: {found['source']}, {found['clips']} clips, {found['frames']} frames"
        typer.echo(f"{line} of {found['width']} values, {total - found['clips']} clips without")
    warnings = [
        f"{found['dropped_frames']} frames of {found['source']} are NaN or infinite somewhere, and left out"
        for found in story["modalities"].values()
        if found["dropped_frames"]
    ]
    seen, assumed = story["faces_per_second"], story["assumed_faces_per_second"]
    if seen is not None and not 1 / RATE_APART < seen / assumed < RATE_APART:
        warnings.append(
            f"a second of voice has {seen:.1f} faces, but {assumed:g} are assumed; "
            'if that is wrong, write {"vision_hz": …} into dataset.json'
        )
    refused = [reason for found in story["modalities"].values() for reason in found["refused"].values()]
    warnings += [f"left out: {reason}" for reason in refused[:SHOWN]]
    if len(refused) > SHOWN:
        warnings.append(f"… and {len(refused) - SHOWN} more are left out; --json lists them all")
    for warning in warnings:
        console.print(printable(warning), style="yellow", markup=False, highlight=False, soft_wrap=True)
