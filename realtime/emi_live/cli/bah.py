"""The commands for BAH, ambivalence and hesitancy frame by frame, as far as they differ from those for clips.

`open_bah` opens the folder for `emi convert`, `emi train`, `emi eval` and `emi predict`. The text encoder is
loaded when a video's words are needed that were not embedded before.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from emi_live.cli.errors import say
from emi_live.errors import ConfigurationError
from emi_models.console import printable
from emi_models.errors import DataError
from emi_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from emi_live.bundle import Encoders
    from emi_models.checkpoint import CheckpointHeader
    from emi_models.data.bah_chunks import BahChunks, ChunkSpans
    from emi_models.training.bah import BahRow, MadeRow
    from emi_models.training.config import TrainConfig

__all__ = [
    "BahFeatures",
    "BahOptions",
    "BahWindow",
    "bah_table",
    "convert_bah",
    "header_options",
    "is_bah_folder",
    "open_bah",
    "predict_bah_files",
    "show_bah_table",
]

CACHE: Final = "emi-cache"
SETTINGS: Final = "bah.json"  # in the cache: what `emi convert` was asked for
WORDS: Final = "bah-words"


BahFeatures = Annotated[
    str | None,
    typer.Option(
        help="BAH: folder of `emi extract --seconds 0`, or 'none' for words alone. Default: as converted.",
        metavar="DIR",
    ),
]
BahWindow = Annotated[
    str | None,
    typer.Option(
        help="BAH: centred, as the paper, or causal, for live use. Default: centred.",
        metavar="centred|causal",
    ),
]


def is_bah_folder(data: Path, choices: dict[str, str | None], asked: str, option: str) -> bool:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BahOptions:
    """How a folder of BAH is opened; None: as the last `emi convert` was asked, else the usual.

    `features` is a folder of `emi extract`, `none` = words alone. `config` and `set_` choose the text
    encoder, as for `emi-live`; without them it is that of the features' bundle.
    """

    features: str | None = None
    config: str | None = None
    set_: tuple[str, ...] = ()
    window: str | None = None
    text_s: float | None = None
    every: int = 1
    unlabelled: bool = False
    cache: Path | None = None


def header_options(options: BahOptions, header: CheckpointHeader) -> tuple[BahOptions, ChunkSpans]:
    """The options and the chunks of a checkpoint's training."""
    from emi_models.data.bah_chunks import ChunkSpans

    if header.task != "bah":
        raise ConfigurationError(
            "the checkpoint estimates intensities, and BAH is rated for ambivalence; give a checkpoint of "
            "`emi train --task bah`"
        )
    return options, ChunkSpans.of_header(header.spans_s, header.notes)


def open_bah(folder: Path, options: BahOptions, spans: ChunkSpans | None = None) -> BahChunks:
    """BAH's frames as clips.

    Args:
        folder: in one of BAH's layouts.
        options: how.
        spans: seconds of a chunk; None: the paper's, with what the options say.

    Raises:
        DataError: the folder or the features cannot be used.
        ConfigurationError: there is no such text encoder.
    """
    from emi_models.data.bah import read_bah
    from emi_models.data.bah_chunks import BahChunks, ChunkSpans
    from emi_models.data.dataset import ManifestClips

    cache = options.cache or folder / CACHE
    told = _told(cache)
    named = options.features or told.get("features")
    features = None
    if named is not None and named != "none":
        features = ManifestClips(Path(named), first_s=None)
    if spans is None:
        spans = ChunkSpans()
        changes: dict[str, Any] = {"window": options.window, "text_s": options.text_s}
        spans = replace(spans, **{name: value for name, value in changes.items() if value is not None})
    bundle = None if features is None else features.info.bundle
    text = _Text(options.config or told.get("config"), options.set_ or tuple(told.get("set", ())), bundle)
    return BahChunks(
        read_bah(folder),
        features,
        text.encode_marked,
        text_encoder=text.encoder_id,
        text_dim=text.dim,
        spans=spans,
        every=options.every,
        unlabelled=options.unlabelled,
        cache=cache / WORDS,
    )


def _told(cache: Path) -> dict[str, Any]:
    """What `emi convert` wrote down, {} if it has not run."""
    path = cache / SETTINGS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it and run `emi convert` again") from error
    return found if isinstance(found, dict) else {}


class _Text:
    """A text encoder that is loaded when it is first used; its id and width are known before."""

    def __init__(self, config: str | None, settings: tuple[str, ...], bundle: str | None) -> None:
        from emi_live.bundle import bundle_of
        from emi_live.config import load_config

        overrides = {} if config is not None or bundle is None else {"bundle": bundle}
        self._config = load_config(config, settings, overrides)
        self._bundle = bundle_of(self._config)
        self._loaded: Encoders | None = None
        self.encoder_id = self._bundle.encoder_ids.get("text")
        self.dim = self._bundle.shapes.text_dim
        if self.encoder_id is None:  # settings choose it
            encoders = self._load()
            self.encoder_id, self.dim = encoders.ids["text"], encoders.dims["text"]

    def encode_marked(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The encoder's states at the mark."""
        sentence = self._load().sentence
        assert sentence is not None  # noqa: S101  # `_load` has checked it
        return sentence.encode_marked(texts)

    def _load(self) -> Encoders:
        if self._loaded is None:
            from emi_live.bundle import Encoders
            from emi_models.store import ModelStore

            encoders = Encoders()
            models = self._config.models
            store = ModelStore(models.directory, offline=models.offline)
            self._bundle.load_text(encoders, self._config, store, None)
            if encoders.sentence is None:
                raise ConfigurationError(
                    f"there is no text encoder: {encoders.unavailable.get('text', 'it is not installed')}"
                )
            self._loaded = encoders
        return self._loaded


def convert_bah(folder: Path, options: BahOptions, console: Console, *, as_json: bool) -> None:
    """Embed the words of all videos once, and report what is there.

    Raises:
        DataError: the folder or the features cannot be used.
    """
    from rich.progress import track

    clips = open_bah(folder, replace(options, unlabelled=True))
    videos = clips.videos
    shown = track(videos, "words", console=console, disable=not console.is_terminal, transient=True)
    spoken = {video.id: clips.embed_words(video.id) for video in shown}
    labelled = [video for video in videos if len(video.frames)]
    frames = sum(len(video.frames) for video in labelled)
    summary = {
        "layout": "bah",
        "videos": dict(Counter(video.split for video in videos)),
        "labelled_videos": len(labelled),
        "labelled_frames": frames,
        "frames_with_ambivalence": int(sum(video.labels.sum() for video in labelled)),
        "videos_with_words": sum(len(words.words) > 0 for words in spoken.values()),
        "videos_with_word_times": sum(len(video.words) > 0 for video in videos),
        "words": sum(len(words.words) for words in spoken.values()),
        "videos_with_features": sum(clips.has_features(video.id) for video in videos),
        "window": clips.spans.window,
        "encoders": dict(clips.encoders),
    }
    cache = options.cache or folder / CACHE
    cache.mkdir(parents=True, exist_ok=True)
    told = {"features": options.features, "config": options.config, "set": list(options.set_)}
    with replacing(cache / SETTINGS) as part:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    _show(summary, console, options)


def _show(summary: dict[str, Any], console: Console, options: BahOptions) -> None:
    total = sum(summary["videos"].values())
    say(f"BAH: {total} videos: " + ", ".join(f"{n} {split}" for split, n in summary["videos"].items()))
    say(
        f"labels: {summary['labelled_frames']} frames of {summary['labelled_videos']} videos, "
        f"{summary['frames_with_ambivalence']} with ambivalence or hesitancy"
    )
    say(
        f"words: {summary['words']} in {summary['videos_with_words']} videos, with their own times in "
        f"{summary['videos_with_word_times']}; embedded for the window '{summary['window']}'"
    )
    say(f"faces and voices: {summary['videos_with_features']} videos")
    warnings = []
    if (timeless := summary["videos_with_words"] - summary["videos_with_word_times"]) > 0:
        warnings.append(f"the words of {timeless} videos have no times, and are spread over the video")
    if 0 < summary["videos_with_features"] < total:
        warnings.append(
            f"{total - summary['videos_with_features']} videos have no features; extract them, or train with "
            "--features none"
        )
    if not summary["videos_with_features"]:
        where = options.features or "none are given"
        warnings.append(f"words alone ({where}); features come from `emi extract --seconds 0`")
    for warning in warnings:
        console.print(printable(warning), style="yellow", markup=False, highlight=False, soft_wrap=True)


def predict_bah_files(
    checkpoints: Sequence[Path],
    data: Path,
    out: str,
    console: Console,
    *,
    split: str = "test",
    level: str = "frame",
    device: str = "auto",
    options: BahOptions | None = None,
) -> None:
    """Write what checkpoints of the task `bah` say of each frame or video of a split; the mean of several.

    Raises:
        DataError, TrainingError: the data or a checkpoint cannot be used.
        ConfigurationError: a checkpoint is not of this task, or two were trained on other chunks.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from emi_models.checkpoint import read_header
    from emi_models.training.bah import predict_bah

    asked = replace(options or BahOptions(), unlabelled=True)
    spans = [header_options(asked, read_header(path))[1] for path in checkpoints]
    if any(each != spans[0] for each in spans):
        raise ConfigurationError("the checkpoints were trained on different chunks; give those of one kind")
    clips = open_bah(data, asked, spans[0])
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("frames", total=len(clips.ids(split)) or None)
        found = predict_bah(
            checkpoints, clips, split, device=device, advance=lambda done: progress.advance(task, done)
        )
    text = found.csv(level)
    if (scores := found.scores) is not None and scores.weighted_f1 is not None:
        line = f"weighted F1 {scores.weighted_f1:.4f} on the {scores.n} labelled frames of {split}"
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    if out == "-":
        typer.echo(text, nl=False)
        return
    with replacing(Path(out)) as part:
        part.write_text(text, encoding="utf-8")
    say(f"wrote {text.count(chr(10)) - 1} {level}s to {out}")


def bah_table(
    number: int,
    data: Path,
    out: Path,
    options: BahOptions | None = None,
    config: TrainConfig | None = None,
    *,
    rows: Sequence[str] = (),
    console: Console | None = None,
) -> tuple[MadeRow, ...]:
    """The rows of table 4, 5 or 6 of "Semantic Matters", made from a folder of BAH (`make_bah_table`).

    Raises:
        TrainingError: there is no such table.
    """
    from emi_models.training.bah import make_bah_table

    asked = options or BahOptions()

    def opened(row: BahRow) -> BahChunks:
        clips = open_bah(data, replace(asked, text_s=row.text_s))
        own = clips.encoders.get("text", "none")
        if row.text_encoder and row.text_encoder not in own.lower():
            raise DataError(
                f"the text encoder here is {own}; convert with --set text.model={row.text_encoder}"
            )
        return clips

    return make_bah_table(number, opened, out, config, rows=rows, console=console)


def show_bah_table(number: int, made: Sequence[MadeRow], console: Console) -> None:
    """Print the rows with the paper's figures next to the user's."""
    from rich.table import Table

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    table = Table(title=f"Semantic Matters, table {number}: weighted F1 of BAH's frames", box=None)
    for heading in ("row", "paper valid", "paper test", "yours valid", "yours test", ""):
        table.add_column(heading)
    for one in made:
        paper, yours = (one.row.valid, one.row.test), (one.valid, one.test)
        table.add_row(one.row.name, *map(figure, (*paper, *yours)), printable(one.why))
    console.print(table)
