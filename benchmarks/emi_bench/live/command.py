"""`emi bench live`: from the command line to a page and a file."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_bench.partial import keeping_what_was_found, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from emi_live import Estimate

__all__ = ["live"]

QUICK_S: Final = 25.0
FLASH_BEEP_S: Final = 60.0  # about 50 onsets at the default hop


def live(
    input_: Annotated[
        Path | None, typer.Option("--input", help="A media file, played at its own pace.")
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Camera index, path or URL.")] = None,
    mic: Annotated[str | None, typer.Option(help="Microphone; 'none' for no sound.")] = None,
    flash_beep: Annotated[
        bool,
        typer.Option("--flash-beep", help="Light and sound in a code, made here: how long until they show?"),
    ] = False,
    duration: Annotated[
        float | None, typer.Option(min=1.0, help="Stop after this many seconds; 60 for --flash-beep.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting, as in emi-live.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Half a minute; of --flash-beep, unless something else is named."),
    ] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report here, for machines.")] = None,
) -> None:
    """How fresh are the estimates? Time from capture to a sink by station, drops, CPU and memory.

    For example: [bold]emi bench live --input talk.mp4[/bold] or [bold]emi bench live --flash-beep[/bold];
    [bold]emi bench live --quick[/bold] takes half a minute
    """
    from rich.console import Console

    from emi_live.cli.preflight import check_before_loading, check_writable
    from emi_live.config import load_config
    from emi_live.errors import ConfigurationError

    if quick:
        flash_beep = flash_beep or (input_ is None and camera is None)
        duration = duration or QUICK_S
    if [input_ is not None, camera is not None, flash_beep].count(True) != 1:
        raise ConfigurationError(
            "say what to run on, one of: --input FILE, --camera N --duration S, --flash-beep"
        )
    if camera is not None and duration is None:
        raise ConfigurationError("a camera never ends; say for how long to measure, e.g. --duration 60")
    if flash_beep and mic is not None:
        raise ConfigurationError("--flash-beep makes its own sound; leave out --mic")
    if json_ is not None:  # said now, not after a minute of measuring
        check_writable("--json", json_)
    source = {"input": input_, "camera": int(camera) if camera and camera.isdecimal() else camera, "mic": mic}
    overrides: dict[str, object] = {
        "source": {key: value for key, value in source.items() if value is not None}
    }
    if duration is not None:
        overrides["duration_s"] = duration
    overrides["fusion"] = {"strict": True}  # no other engine is measured in place of the one asked for
    config = load_config(settings=set_ or (), overrides=overrides)
    if flash_beep and not config.source.is_pushed:
        raise ConfigurationError("--flash-beep brings its own media; leave out the settings of source.*")

    check_before_loading(config)
    from emi_bench.live.page import page
    from emi_bench.live.run import measure_flash_beep, measure_live

    with keeping_what_was_found(json_):
        if flash_beep:
            seconds = config.duration_s or FLASH_BEEP_S
            with _progress(seconds) as show:
                report = measure_flash_beep(config, seconds, show)
        else:
            with _progress(config.duration_s) as show:
                report = measure_live(config, show)
    Console(highlight=False).print(page(report))
    write_report(json_, report)


@contextmanager
def _progress(seconds: float | None) -> Iterator[Callable[[Estimate], None]]:
    """A bar on stderr, if that is a terminal: how far the run is, and how late the newest estimate."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("at real pace"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("loading models", total=seconds)

        def show(estimate: Estimate) -> None:
            age_ms = estimate.latency.capture_to_estimate
            age = "nothing seen or heard yet" if age_ms is None else f"{age_ms:.0f} ms after capture"
            bar.update(task, completed=estimate.t_s, description=f"{estimate.t_s:.0f} s, {age}")

        yield show
