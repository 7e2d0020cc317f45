"""`emi extract`: turn a folder of videos into training features, with the encoders that run live.

Progress is a bar on a terminal; elsewhere it is a line from time to time.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emi_live.bundle import bundle_names, default_bundle
from emi_live.cli.encode import encode_features
from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import (
    LINE_EVERY_S,
    AtOnceOption,
    ClusterOption,
    DeviceOption,
    WorkersOption,
    check_out_folder,
    complete_bundle,
    complete_preset,
    listing_bar,
    workers_of,
)
from emi_live.errors import ConfigurationError
from emi_models.console import printable
from emi_models.libraries import require

if TYPE_CHECKING:
    from rich.console import Console

    from emi_live.extract.folder import Entry, Listing
    from emi_live.extract.pool import Ready
    from emi_live.extract.run import Report

__all__ = ["ExtractView", "app"]

HELP = """Turn a folder of videos into training features, with the encoders and stages that run live.

So a network gets live exactly the numbers that it was trained on.

[bold]Examples[/bold]

  emi extract --videos clips --out features
  emi extract --videos clips --labels ratings.csv --out features
  emi extract --videos clips --without text --workers 4 --out features
  emi extract --videos data/raw --labels data --out features    [dim]Hume-Vidmimic2[/dim]
  emi extract --videos data/raw --labels data --bundle taemi --out taemi
  emi extract --videos s3://bucket/clips --cluster auto --out features
  emi extract --data data --encoder dinov2-base --name dinov2   [dim]into data/dinov2[/dim]

After Ctrl-C or a power cut, the same command continues where it stopped; a file
that changed is extracted again. Files that cannot be used are left out and listed.
"""
SHOWN: Final = 20  # refused files listed on the terminal


def _known_bundle(name: str | None) -> str | None:
    if name is not None and name not in bundle_names():
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(bundle_names())}")
    return name


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

INPUT = "What to extract"
HOW = "How"
ENCODER = "One encoder over a data set's own media, in place of --videos and --out"


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def extract(
    videos: Annotated[
        str | None,
        typer.Option(
            help="Folder of clips, subfolders included; a CSV of paths; or a URL of either, such as s3://bucket/clips.",
            rich_help_panel=INPUT,
            metavar="DIR|CSV|URL",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the features; created if it does not exist.",
            rich_help_panel=INPUT,
            metavar="DIR",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Ratings: a CSV with id (or Filename), the six emotions and perhaps split; "
            "or a folder with train_split.csv. Of a CSV of other labels only the splits are taken: "
            "give it to `emi train` again.",
            rich_help_panel=INPUT,
            metavar="CSV|DIR",
        ),
    ] = None,
    split_by: Annotated[
        str,
        typer.Option(
            help="labels: as given there; folder: by folder names train, valid, test; clip: random 80/10/10; "
            "or a column of the labels, e.g. speaker: at random, clips with the same value together.",
            rich_help_panel=INPUT,
            metavar="WAY|COLUMN",
        ),
    ] = "labels",
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the clips; a checkpoint inherits it.", rich_help_panel=INPUT),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help=f"Encoders to use. Default: {default_bundle().name}.",
            rich_help_panel=HOW,
            metavar=f"<{'|'.join(bundle_names())}>",
            autocompletion=complete_bundle,
            callback=_known_bundle,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out vision, audio or text. Repeatable.", rich_help_panel=HOW, metavar="MODALITY"
        ),
    ] = None,
    audio_track: Annotated[
        str | None,
        typer.Option(
            help="Sound track of each file. Default: the file's default track.",
            rich_help_panel=INPUT,
            metavar="N|LANG",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Use only the first seconds of longer clips; 0 = all.", rich_help_panel=HOW)
    ] = 12.0,
    keep_media: Annotated[
        bool,
        typer.Option(
            "--keep-media",
            help="Also keep the sound and the face crops, for emi train --train-encoders (bundle taemi).",
            rich_help_panel=HOW,
        ),
    ] = False,
    workers: WorkersOption = None,
    at_once: AtOnceOption = None,
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail on the first bad file.", rich_help_panel=HOW),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            help="As for emi-live: a preset or a TOML file.",
            rich_help_panel=HOW,
            metavar="PRESET|FILE",
            autocompletion=complete_preset,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any setting of emi-live's stages, e.g. speech.backend=pocketsphinx, or with taemi "
            "face.model=DIR. Repeatable.",
            rich_help_panel=HOW,
            metavar="KEY=VALUE",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never use the network.", rich_help_panel=HOW)
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="With --encoder: Hume-Vidmimic2's folder.", rich_help_panel=ENCODER, metavar="DIR"),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="Any encoder in transformers' format, such as DINOv2, CLIP, wav2vec 2.0, BERT.",
            rich_help_panel=ENCODER,
            metavar="FOLDER",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The features' folder in DIR. Default: that of the encoder.",
            rich_help_panel=ENCODER,
            metavar="NAME",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Folder in DIR to read. Default: face_images, audio or raw, text.",
            rich_help_panel=ENCODER,
            metavar="NAME",
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="How a picture or a text becomes one vector. Default: as usual for the encoder.",
            rich_help_panel=ENCODER,
            metavar="cls|mean",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Pictures, pieces of sound or texts at once.", min=1, rich_help_panel=ENCODER, metavar="N"
        ),
    ] = None,
    allow_remote_code: Annotated[
        bool,
        typer.Option(
            "--allow-remote-code",
            help="Run the pinned code of Alibaba's GTE.",
            rich_help_panel=ENCODER,
        ),
    ] = False,
    debug: DebugOption = False,
) -> None:
    if bundle == "taemi":
        require("torch", "transformers", extra="taemi", what="emi extract --bundle taemi")
    from rich.console import Console

    if encoder is not None:
        elsewhere = {
            **{"--videos": videos, "--out": out, "--labels": labels, "--licence": licence},
            **{"--bundle": bundle, "--without": without, "--audio-track": audio_track, "--config": config},
            **{"--set": set_, "--keep-media": keep_media, "--strict": strict},
            **{"--workers": workers, "--at-once": at_once, "--cluster": cluster},
        }
        if given := [option for option, value in elsewhere.items() if value]:
            raise ConfigurationError(f"{given[0]} means nothing with --encoder, which runs in this process")
        require("transformers", extra="taemi", what="emi extract --encoder")
        encode_features(
            data,
            encoder,
            name,
            source=source,
            pooling=pooling,
            device=device or "auto",
            batch=batch,
            allow_remote_code=allow_remote_code,
            console=Console(stderr=True),
        )
        return
    if videos is None or out is None:
        raise ConfigurationError("give --videos DIR and --out DIR, or --data DIR and --encoder FOLDER")

    from emi_live.cli.options import download_bar
    from emi_live.extract.encoders import fetch_models, load_settings
    from emi_live.extract.folder import list_videos, rate
    from emi_live.extract.places import is_url
    from emi_live.extract.run import extract as run
    from emi_live.extract.task import Task
    from emi_models.store import ModelStore

    settings = load_settings(
        bundle,
        without=without or (),
        seconds=seconds,
        preset=config,
        settings=set_ or (),
        audio_track=audio_track,
        offline=offline,
        keep_media=keep_media,
        device=device,
    )
    check_out_folder("--out", out)
    console = Console(stderr=True)
    with listing_bar(console) as found_so_far:
        listing = list_videos(videos, found_so_far)
    ratings = rate(listing.videos, labels, split_by)
    with download_bar(console) as progress:
        models = settings.live.models
        store = ModelStore(models.directory, offline=models.offline)
        settings, why_not_whisper = fetch_models(settings, store, progress)
    if why_not_whisper:
        line = f"words: not Whisper: {why_not_whisper}"
        console.print(printable(line), style="yellow", markup=False, highlight=False, soft_wrap=True)
    task = Task(
        settings=settings,
        out=out.resolve(),
        description=f"clips of {videos if is_url(videos) else Path(videos).resolve().stem}",
        licence=licence,
        vidmimic=labels is not None and labels.is_dir(),
        at_once=at_once,
        debug=debug,
    )
    pool = workers_of(task, workers, cluster)
    with ExtractView(console, listing) as view:
        try:
            report = run(listing, ratings, out, pool, view, strict=strict, shards=cluster is not None)
        except KeyboardInterrupt:
            view.say(f"stopped after {view.done} clips; the same command continues from there")
            raise
    _sum_up(console, report, out)
    if not (report.kept or report.written):
        raise ConfigurationError(f"none of the {len(report.refused)} files in {videos} can be used")


def _sum_up(console: Console, report: Report, out: Path) -> None:
    """Print the last lines: the result, and the files that were left out, with the reason."""
    clips = [*report.kept, *report.written]
    if clips:
        say(
            f"{len(clips)} clips in {out} ({len(report.written)} now, {len(report.kept)} before): "
            f"{sum(clip.faces > 0 for clip in clips)} with a face, "
            f"{sum(clip.sounds > 0 for clip in clips)} with sound, "
            f"{sum(clip.words > 0 for clip in clips)} with words"
        )
        splits = Counter(row.rating.split or "without a split" for row in report.rows)
        rated = sum(row.rating.targets is not None for row in report.rows)
        say(f"{rated} rated; " + ", ".join(f"{count} {split}" for split, count in splits.items()))
    warnings = [f"{name}: {reason}" for name, reason in report.refused]
    warnings += [
        f"{name}: kept, but {count} damaged packets were left out" for name, count in report.damaged.items()
    ]
    if report.strangers:
        warnings.append(f"{report.strangers} clips in {out} come from other files; they are kept")
    for line in warnings[:SHOWN]:
        console.print(f"  {printable(line)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(warnings) > SHOWN:
        console.print(f"  … and {len(warnings) - SHOWN} more", style="yellow")
    if warnings:
        left_out = len(report.refused)
        console.print(f"{len(warnings)} warnings; {left_out} files left out", style="yellow")


class ExtractView:
    """Shows finished clips, their rate and the remaining time; a `Watcher`."""

    def __init__(self, console: Console, listing: Listing, what: str = "encoders") -> None:
        """`what` is loaded first, in words."""
        self._console = console
        self._what = what
        self._listing = listing
        self._shown = ExitStack()
        self._bar: Progress | None = None
        self._todo = self._done = self._refused = 0
        self._media_s = 0.0
        self._started = self._last_line = monotonic()
        self._took_s = 0.0  # until the newest clip

    def __enter__(self) -> Self:
        """Print what was found, and that the encoders are loading."""
        listing = self._listing
        others = ", ".join(f"{count} {suffix}" for suffix, count in sorted(listing.others.items()))
        self.say(f"{len(listing.videos)} clips" + (f" (ignored: {others})" if others else ""))
        self._shown.enter_context(self._console.status(f"loading the {self._what} …"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the terminal, and print the speed."""
        self._shown.close()
        if self._done and kind is None:
            self.say(f"{self._media_s:.1f} s of media in {self._took_s:.1f} s: {self._rate()}")

    @property
    def done(self) -> int:
        """Clips that this run has done."""
        return self._done

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(printable(line), style="dim", markup=False, highlight=False, soft_wrap=True)

    def ready(self, what: Ready, done: int, todo: int) -> None:
        """Print what runs, and start counting."""
        self._shown.close()
        for line in what.announcements:
            self.say(line)
        if what.at_once > 1:
            self.say(f"each worker does {what.at_once} clips at once, with encoders in batches")
        if done:
            self.say(f"{done} clips were done before, {todo} remain")
        self._todo = todo + len(self._listing.unusable)  # which are refused at once
        self._started = self._last_line = monotonic()
        if todo and self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._shown.enter_context(self._bar)
            self._bar.add_task("", total=todo, rate="")

    def wrote(self, entry: Entry) -> None:
        """Count one clip."""
        self._done += 1
        self._media_s += entry.duration_s
        self._update()

    def refused(self, name: str, reason: str) -> None:
        """Count one file; it is listed at the end."""
        self._refused += 1
        self._update()

    def _update(self) -> None:
        done = self._done + self._refused
        self._took_s = max(1e-3, monotonic() - self._started)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, rate=self._rate())
        elif monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = monotonic()
            left_s = self._took_s / done * (self._todo - done)
            self.say(f"{done} of {self._todo} clips, about {left_s:.0f} s left; {self._rate()}")

    def _rate(self) -> str:
        if not self._done:
            return ""
        media = self._media_s / self._took_s
        return f"{self._done / self._took_s:.2f} clips/s, {media:.1f} times real time"
