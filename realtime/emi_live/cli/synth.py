"""`emi synth`: make a synthetic corpus in the layout of Hume-Vidmimic2, to try training without it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emi_live.cli.errors import DebugOption
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from emi_models.data.synth import SynthCorpus

__all__ = ["app"]


class Sizes(StrEnum):
    """Widths and rates of the features."""

    small = "small"
    official = "official"


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Make a synthetic corpus in the layout of Hume-Vidmimic2, to try training without it.",
)


@app.callback(invoke_without_command=True)
def synth(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    clips: Annotated[int, typer.Option(help="How many; the data set has 12660 rated ones.")] = 4000,
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace the synthetic corpus that is there.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Make a synthetic corpus in the layout of Hume-Vidmimic2, with the truth about each clip beside it.

    Nobody is in it: it shows whether training works, and nothing about people.

    For example: [bold]emi synth --clips 4000 --out synth && emi train --data synth …[/bold]
    """
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
        _write(SynthCorpus(config), out, force)
    except SynthError as error:
        raise ConfigurationError(str(error)) from error


def _write(corpus: SynthCorpus, out: Path, force: bool) -> None:
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
    typer.echo(f"wrote {clips} clips ({counts}), {written / 1e6:.1f} MB, to {out}")
    typer.echo(NOTICE)
