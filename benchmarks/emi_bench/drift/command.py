"""`emi bench drift`: from the command line to a page and a file."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_bench.partial import keeping_what_was_found, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from emi_bench.drift.report import Setting
    from emi_bench.drift.run import Progress

__all__ = ["drift"]

CLIPS: Final = ("jfk.flac", "librivox_sense_0870.wav", "LJ001-0006.wav", "LJ001-0004.wav")
HOPS: Final = (0.2, 0.5, 1.0)
LEFTS: Final = (1.0, 3.0, 6.0)
HOLDS: Final = (0.0, 0.24)
LEAST_SAMPLES: Final = 8_000


def drift(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Recordings of speech, any media file. Default: four clips of read and public speech, "
            "29 s, of EMI_TEST_ASSETS or --assets."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A folder with wav2vec 2.0, HuBERT or WavLM in transformers' format, as `emi models pull` "
            "or `hf download` make it; or random-large (audeering's shape) or random-small, seeded random "
            "weights, whose work and time are real but whose drift is not a trained model's."
        ),
    ] = "random-small",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint trained on the model's features, for the six intensities. Default: TAEMI with "
            "seeded random weights, which says little."
        ),
    ] = None,
    hop: Annotated[
        list[float] | None, typer.Option(help="Seconds between steps; give it again for another.")
    ] = None,
    left: Annotated[
        list[float] | None,
        typer.Option(help="Seconds of the past that a step attends to; again for another."),
    ] = None,
    hold: Annotated[
        list[float] | None,
        typer.Option(help="Seconds of sound that a frame waits for before it is final; again for another."),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="cached: keys and values of the past are kept. recompute: the past is passed anew in every "
            "step. Again for the other. Default: cached."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For PyTorch. Default: its own.")] = None,
    assets: Annotated[Path | None, typer.Option(help="Where speech/ of the test media is.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A minute: one hop, one past, and without --model or clips, two clips."),
    ] = False,
    json_: Annotated[
        str | None,
        typer.Option("--json", help="Write the report to this file, for machines; - for the output."),
    ] = None,
) -> None:
    """How far is the voice of a live stream from one pass over the whole clip? By hop, context and waiting.

    wav2vec 2.0 looks at 12 s in both directions. Live, each frame is computed once, from kept keys and values
    of the past and no more future than is waited for. This says what that changes, without any labels.

    Cosine: of each frame's features with those of the whole pass; mean, the value that one frame in twenty is
    below, the worst. Δ: change of the six intensities, when the network is given the streamed voice in place
    of the other; mean and largest. Late: the oldest frame of a step when it comes out, hop + held, computing
    not counted. GFLOP/s: work for a second of sound. RTF: share of the time that it works, above 1 it cannot
    keep up.

    For example: [bold]emi bench drift --quick[/bold],
    [bold]emi bench drift --model wav2vec2-emotion/ --checkpoint taemi.safetensors[/bold],
    [bold]emi bench drift talk.wav --hop 0.5 --left 3 --hold 0 --hold 0.24 --hold 1.2[/bold], or
    [bold]emi bench drift --model random-large --json drift.json[/bold].
    [bold]emi bench report drift.json[/bold] makes a page of it.
    """
    from rich.console import Console

    from emi_live.cli.preflight import check_writable

    path = None if json_ in (None, "-") else Path(json_)
    if path is not None:  # said now, not after minutes of measuring
        check_writable("--json", path)
    settings = _settings(
        strategy or ["cached"],
        hop or (HOPS[1:2] if quick else HOPS),
        left or (LEFTS[1:2] if quick else LEFTS),
        hold or HOLDS,
    )
    sounds = _sounds(clips or _default_clips(assets)[: 2 if quick else None])

    from tempfile import TemporaryDirectory

    import torch

    from emi_bench.drift.models import open_judge, open_listener
    from emi_bench.drift.page import page
    from emi_bench.drift.run import measure_drift

    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=True)
    with (
        keeping_what_was_found(json_),
        TemporaryDirectory(prefix="emi-drift-") as scratch,
        _progress(console) as progress,
    ):
        listener = open_listener(model, Path(scratch))
        report = measure_drift(listener, open_judge(checkpoint, listener), sounds, settings, progress)
    write_report(json_, report)
    if json_ == "-":
        return
    Console(highlight=False).print(page(report))


def _settings(
    strategies: Sequence[str], hops: Sequence[float], lefts: Sequence[float], holds: Sequence[float]
) -> list[Setting]:
    from emi_bench.drift.report import FRAME_S, Setting
    from emi_live.errors import ConfigurationError

    for name, values, least in (("hop", hops, FRAME_S), ("left", lefts, 0.0), ("hold", holds, 0.0)):
        for value in values:
            if not least <= value <= 60.0 or abs(value / FRAME_S - round(value / FRAME_S)) > 1e-6:
                raise ConfigurationError(
                    f"--{name} {value:g} is not a whole number of frames of 20 ms, {least:g} to 60 s"
                )
    found = []
    for strategy in strategies:
        if strategy not in ("cached", "recompute"):
            raise ConfigurationError(f"--strategy {strategy} is not one of cached, recompute")
        found += [
            Setting("cached" if strategy == "cached" else "recompute", hop, left, hold)
            for hop in hops
            for left in lefts
            for hold in holds
        ]
    return found


def _default_clips(assets: Path | None) -> list[Path]:
    from emi_bench.speech.folder import speech_assets
    from emi_live.errors import ConfigurationError

    folder = speech_assets() if assets is None else assets / "speech"
    missing = [name for name in CLIPS if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(f"{folder} lacks {', '.join(missing)}; name recordings of your own")
    return [folder / name for name in CLIPS]


def _sounds(paths: Sequence[Path]) -> list[tuple[str, NDArray[np.float32]]]:
    from emi_bench.speech.clips import read_sound
    from emi_live.errors import ConfigurationError

    found = [(path.name, read_sound(path)) for path in paths]
    if short := [name for name, samples in found if samples.size < LEAST_SAMPLES]:
        raise ConfigurationError(f"{', '.join(short)}: shorter than half a second; give longer recordings")
    return found


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A bar on stderr, if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield show
