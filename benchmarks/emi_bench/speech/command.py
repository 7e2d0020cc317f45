"""`emi bench speech`: from the command line to a page and a file."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emi_bench.partial import keeping_what_was_found, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_bench.speech.run import Progress

__all__ = ["speech"]


def speech(
    model: Annotated[
        str | None,
        typer.Option(
            help="A Whisper model of `emi models list`, fetched if need be, or a folder in CTranslate2's "
            "format, e.g. of large-v3-turbo. Default: that of emi-live."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="faster-whisper or pocketsphinx. Default: what emi-live would run.")
    ] = None,
    clips: Annotated[
        list[str] | None,
        typer.Option(
            help="What is said: real (read speech of EMI_TEST_ASSETS), synthetic (eSpeak NG, with the true "
            "times of words), or a folder with NAME.wav and NAME.txt; give it again for another. Default: "
            "synthetic, unless something else is asked for."
        ),
    ] = None,
    clock: Annotated[
        list[str] | None,
        typer.Option(
            help="unaware: computing takes no time, what is left is the policy's own wait. aware: it does, "
            "by a simulated clock that skips waiting. real: the wall's clock. Give it again for another. "
            "Default: unaware and aware."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=1.5, help="Hear a synthetic monologue so long: does the lag grow?")
    ] = None,
    nonstop: Annotated[
        bool, typer.Option("--nonstop", help="Without a pause in the monologue that would end an utterance.")
    ] = False,
    conditions: Annotated[
        bool,
        typer.Option(
            "--conditions", help="Hear silence, noise, music, other languages, two speakers, a telephone."
        ),
    ] = False,
    condition_minutes: Annotated[
        float, typer.Option(min=0.1, help="Of silence, noise and music each.")
    ] = 5.0,
    face_clip: Annotated[
        Path | None,
        typer.Option(
            help="Play this clip through the whole engine, with words and without: do faces wait for words?"
        ),
    ] = None,
    face_turns: Annotated[int, typer.Option(min=1, help="How often, each way.")] = 2,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting, as in emi-live.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes: one clip of each kind, by one clock.")
    ] = False,
    json_: Annotated[
        str | None,
        typer.Option("--json", help="Write the report to this file, for machines; - for the output."),
    ] = None,
) -> None:
    """How good are the words, and how late? The speech stage on clips whose words and times are known.

    [bold]WER[/bold]: word error rate of what became certain, beside that of the
    same recogniser on the clip in one piece.

    [bold]first shown, committed[/bold]: ms from the end of a word until it showed, and
    until it was certain; of words heard rightly.

    [bold]erasure[/bold]: words shown and taken back, for each that stayed.

    [bold]RTF[/bold]: share of the time that it works; above 1 it cannot keep up.

    For example:

    [bold]emi bench speech --quick[/bold]

    [bold]emi bench speech --backend pocketsphinx --clips real[/bold]

    [bold]emi bench speech --model turbo/ --clips talks/ --json turbo.json[/bold]

    [bold]emi bench speech --minutes 30 --clock aware[/bold] (does the lag grow?)

    [bold]emi bench report turbo.json[/bold] makes a page of a report.
    """
    from rich.console import Console

    from emi_bench.speech.plan import carry_out, make_plan
    from emi_live.cli.downloads import download_bar
    from emi_live.cli.preflight import check_writable

    path = None if json_ in (None, "-") else Path(json_)
    if path is not None:  # said now, not after minutes of measuring
        check_writable("--json", path)
    plan = make_plan(
        model=model,
        backend=backend,
        clips=clips,
        clocks=clock or (["aware"] if quick else None),
        minutes=minutes,
        nonstop=nonstop,
        condition_s=60 * condition_minutes if conditions else None,
        face_clip=face_clip,
        face_turns=face_turns,
        settings=set_ or (),
        most_clips=1 if quick else None,
    )
    console = Console(stderr=True)
    with (
        keeping_what_was_found(json_),
        download_bar(console) as download,
        _progress(console) as progress,
    ):
        report = carry_out(plan, progress, download)
    write_report(json_, report)
    if json_ == "-":
        return
    from emi_bench.speech.page import page

    Console(highlight=False).print(page(report))


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A bar on stderr, if that is a terminal: what is heard, and how much of it has been."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(what: str, done_s: float, of_s: float) -> None:
            bar.update(task, description=what, completed=done_s, total=of_s or None)

        yield show
