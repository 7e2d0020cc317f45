"""The commands for recorded clips.

`emi score`: score clips into tables, subtitles, annotations and pictures.
`emi plot`: draw one clip: its curves with bands, states and words.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import (
    AtOnceOption,
    ClusterOption,
    DeviceOption,
    WorkersOption,
    check_checkpoint,
    check_out_folder,
    check_writable,
    complete_preset,
    listing_bar,
    workers_of,
)
from emi_live.errors import ConfigurationError
from emi_models import MODALITIES
from emi_models.console import printable
from emi_models.libraries import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from emi_live.config import LiveConfig
    from emi_live.scoring.run import Report

__all__ = ["plot_app", "score_app"]

SHOWN: Final = 20  # refused clips and rows of the table on the terminal
WHAT = "What"
HOW = "How"

SCORE_HELP = """Score clips: the numbers of [bold]emi-live --input CLIP[/bold], for many clips at once.

[bold]Examples[/bold]

  emi score clips --out scores                              [dim]a folder: CSV, and summary.csv[/dim]
  emi score a.mp4 b.wav 'day*/*.mov' --out scores
  emi score clips --out scores -f csv -f parquet -f vtt     [dim]tables, and words as subtitles[/dim]
  emi score clips --out scores -f elan -f textgrid          [dim]for ELAN and Praat[/dim]
  emi score clips --out scores -f png --overlay             [dim]pictures, and copies with bars[/dim]
  emi score clips --out scores --workers 4 --offline
  emi score s3://bucket/clips --out scores --cluster auto   [dim]on Ray[/dim]

csv: estimates, states, blendshapes, head pose, F0, level, and words in NAME.words.csv. parquet: the same.
srt, vtt: words as subtitles. textgrid: Praat. elan: ELAN. bids: NAME_physio.tsv.gz. png, svg: as `emi plot`.

After Ctrl-C, kill -9 or a power cut the same command continues. Files that are there are never replaced
without --overwrite. A clip that cannot be used is listed, and the rest goes on.
"""
PLOT_HELP = """Draw one clip: a curve for each value with its band, the states of the modalities, the words.

[bold]Examples[/bold]

  emi plot clip.mp4 --out clip.png               [dim]scores the clip first[/dim]
  emi plot scores/clip.csv --out clip.svg        [dim]of `emi score`; or .parquet[/dim]
  emi plot session.jsonl --out session.png       [dim]of `emi-live --json`; without words[/dim]
"""

score_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
plot_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="As for emi-live: a preset or a TOML file.",
        metavar="PRESET|FILE",
        autocompletion=complete_preset,
        rich_help_panel=HOW,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting of emi-live, e.g. window.hop_s=0.1. Repeatable.",
        metavar="KEY=VALUE",
        rich_help_panel=HOW,
    ),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Your own checkpoint.", metavar="FILE", rich_help_panel=HOW),
]
TrackOption = Annotated[
    str | None,
    typer.Option(
        "--audio-track",
        help="Sound track of each clip. Default: the file's default track.",
        metavar="N|LANG",
        rich_help_panel=WHAT,
    ),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never use the network.", rich_help_panel=HOW)]


@score_app.command(help=SCORE_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def score(
    clips: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files, patterns in quotes, CSVs of paths, URLs such as s3://bucket/clips.",
            metavar="CLIPS…",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results; created if it does not exist.", rich_help_panel=WHAT, metavar="DIR"
        ),
    ],
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="csv, parquet, srt, vtt, textgrid, elan, bids, png, svg. Repeatable. Default: csv.",
            rich_help_panel=WHAT,
            metavar="NAME",
        ),
    ] = None,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay",
            help="Also write NAME.overlay.mp4, a copy with bars and words drawn over it.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    cut: Annotated[
        float,
        typer.Option(
            help="Times above this share of a value's range are marked and summed up.",
            min=0.0,
            max=1.0,
            rich_help_panel=WHAT,
        ),
    ] = 0.5,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out vision, audio or text. Repeatable.", rich_help_panel=HOW, metavar="MODALITY"
        ),
    ] = None,
    audio_track: TrackOption = None,
    workers: WorkersOption = None,
    at_once: AtOnceOption = None,
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.", rich_help_panel=WHAT)
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on the first bad clip.", rich_help_panel=HOW)
    ] = False,
    checkpoint: CheckpointOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    offline: OfflineOption = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    from emi_live.cli.extract import ExtractView
    from emi_live.scoring.files import FORMATS
    from emi_live.scoring.run import PICTURES, Plan, Task, find_clips, score_all

    formats = tuple(dict.fromkeys(format_ or ["csv"]))
    if unknown := [name for name in formats if name not in FORMATS and name not in PICTURES]:
        raise ConfigurationError(f"--format {unknown[0]}: there are {', '.join((*FORMATS, *PICTURES))}")
    for name in formats:
        modules = ("matplotlib",) if name in PICTURES else FORMATS[name].modules
        require(*modules, extra="score", what=f"--format {name}")
    if overlay:
        require("matplotlib", "PIL", extra="score", what="--overlay")
    console = Console(stderr=True)
    settings = _settings(
        console, config, set_, checkpoint, without or (), audio_track, device, offline=offline
    )
    with listing_bar(console) as found_so_far:
        listing = find_clips(clips, found_so_far)
    check_out_folder("--out", out)
    plan = Plan(out=out.resolve(), formats=formats, overlay=overlay, cut=cut)
    task = Task(plan=plan, config=settings, at_once=at_once, debug=debug)
    with ExtractView(console, listing, what="models") as view:
        pool = workers_of(task, workers, cluster)
        try:
            report = score_all(listing, task, pool, view, overwrite=overwrite, strict=strict)
        except KeyboardInterrupt:
            view.say(f"stopped after {view.done} clips; the same command continues from there")
            raise
    _sum_up(console, report, out)
    if not report.rows:
        raise ConfigurationError(f"none of the {len(report.refused)} clips can be used")


def _settings(
    console: Console,
    preset: str | None,
    settings: Sequence[str] | None,
    checkpoint: Path | None,
    without: Sequence[str],
    audio_track: str | None,
    device: str | None = None,
    *,
    offline: bool,
) -> LiveConfig:
    """The settings of a run, with the models fetched."""
    from emi_live.bundle import with_tuned_encoders
    from emi_live.cli.options import download_bar
    from emi_live.config import load_config
    from emi_live.extract.encoders import ExtractSettings, fetch_models, with_device
    from emi_models.store import ModelStore

    if unknown := sorted(set(without) - set(MODALITIES)):
        raise ConfigurationError(f"--without {unknown[0]}: there are {', '.join(MODALITIES)}")
    overrides: dict[str, Any] = {
        "mode": "exact",
        "face": {"enabled": False} if "vision" in without else {},
        "audio": {"enabled": False} if "audio" in without else {},
        "speech": {"backend": "none"} if "text" in without else {},
        "models": {"offline": True} if offline else {},
        "source": {"audio_track": audio_track} if audio_track is not None else {},
        "fusion": {} if checkpoint is None else {"checkpoint": checkpoint},
    }
    live = load_config(preset, settings or (), {name: given for name, given in overrides.items() if given})
    if live.source.camera is not None or live.source.input is not None:
        raise ConfigurationError("clips are given as arguments: leave source.camera and source.input out")
    if checkpoint is not None:
        check_checkpoint(checkpoint, live.bundle)
    live = with_device(with_tuned_encoders(live), device)
    if live.bundle == "taemi":
        require("torch", "transformers", extra="taemi", what="the bundle taemi")
    left_out = frozenset(modality for modality in MODALITIES if modality in without)
    with download_bar(console) as progress:
        store = ModelStore(live.models.directory, offline=live.models.offline)
        found, why_not = fetch_models(ExtractSettings(live=live, without=left_out), store, progress)
    if why_not:
        line = f"words: not Whisper: {why_not}"
        console.print(printable(line), style="yellow", markup=False, highlight=False, soft_wrap=True)
    return found.live


def _sum_up(console: Console, report: Report, out: Path) -> None:
    """Print a table of the clips, the clips that were left out, and where the results are."""
    from rich.table import Table
    from rich.text import Text

    if report.rows:
        targets = [name.removesuffix("_mean") for name in report.rows[0] if name.endswith("_mean")]
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        for heading in ("clip", "s", "words", "highest mean", "highest peak"):
            table.add_column(heading, justify="right" if heading in ("s", "words") else "left")
        for row in report.rows[:SHOWN]:
            length = (f"{row['seconds']:.1f}", str(row["words"]))
            table.add_row(Text(printable(row["file"])), *length, *_highest(row, targets))
        console.print(table)
        if len(report.rows) > SHOWN:
            console.print(f"… and {len(report.rows) - SHOWN} more in {out / 'summary.csv'}", style="dim")
    warnings = [f"{name}: {reason}" for name, reason in report.refused]
    warnings += [f"{name}: {count} damaged packets were left out" for name, count in report.damaged.items()]
    for line in warnings[:SHOWN]:
        console.print(f"  {printable(line)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(warnings) > SHOWN:
        console.print(f"  … and {len(warnings) - SHOWN} more", style="yellow")
    say(
        f"{len(report.written)} clips scored now, {len(report.kept)} before"
        + (f", {len(report.refused)} left out" if report.refused else "")
        + f"; results in {out}, a row for each in {out / 'summary.csv'}"
    )


def _highest(row: Mapping[str, Any], targets: Sequence[str]) -> tuple[str, str]:
    """The highest mean, and the highest peak with its time."""
    mean = max(targets, key=lambda name: row[f"{name}_mean"])
    peak = max(targets, key=lambda name: row[f"{name}_peak"])
    at_s = row[f"{peak}_peak_at_s"]
    return (
        f"{mean.replace('_', ' ')} {row[f'{mean}_mean']:.2f}",
        f"{peak.replace('_', ' ')} {row[f'{peak}_peak']:.2f} at {at_s:.1f} s",
    )


@plot_app.command(help=PLOT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def plot(
    clip: Annotated[
        Path,
        typer.Argument(
            help="A clip; or a table of `emi score`, or JSON lines.", metavar="FILE", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The picture: .png, .svg or .pdf.", metavar="FILE", rich_help_panel=WHAT)
    ],
    title: Annotated[
        str, typer.Option(help="Above the curves. Default: the file's name.", rich_help_panel=WHAT)
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the picture if it is there.", rich_help_panel=WHAT)
    ] = False,
    audio_track: TrackOption = None,
    checkpoint: CheckpointOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    offline: OfflineOption = False,
    debug: DebugOption = False,
) -> None:
    require("matplotlib", extra="score", what="`emi plot`")
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigurationError(f"--out {out}: name a file that ends in .png, .svg or .pdf")
    if out.exists() and not force:
        raise ConfigurationError(f"--out {out} is there; give --force, or another name")
    check_writable("--out", out)
    if not clip.is_file():
        raise ConfigurationError(f"{clip}: there is no such file")
    from rich.console import Console

    from emi_live.scoring.files import read_scores
    from emi_live.scoring.picture import plot as draw

    if clip.suffix.lower() in (".csv", ".parquet", ".jsonl"):
        if clip.suffix.lower() == ".parquet":
            require("pyarrow", extra="score", what="reading Parquet")
        scores = read_scores(clip)
    else:
        from emi_live.scoring.clip import ClipScorer

        console = Console(stderr=True)
        settings = _settings(console, config, set_, checkpoint, (), audio_track, offline=offline)
        with console.status(f"scoring {printable(clip.name)} …"), ClipScorer(settings) as scorer:
            scores = scorer.score(clip)
    draw(scores, out, title=title or clip.name)
    say(f"{scores.duration_s:.1f} s, {scores.rows} estimates, {len(scores.words)} words: {out}")
