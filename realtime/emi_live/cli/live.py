"""`emi-live`: watch a camera and a microphone, or a file, and show six intensities live.

The options are checked before anything heavy is imported, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from emi_engine import ENGINES
from emi_live.cli.errors import report_errors, run_app
from emi_live.cli.options import (
    check_before_loading,
    complete_camera,
    complete_engine,
    complete_microphone,
    complete_mode,
    complete_preset,
    media_argument,
)
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from emi_live.config import LiveConfig

__all__ = ["app", "main"]

HELP = """Estimate live how strongly a face, a voice and words show six emotions.

[bold]Start here[/bold]

  emi-live --demo                       a scripted demo: no camera, no download
  emi-live --camera 0                   your camera and default microphone
  emi-live --camera 0 --mic none        only the face, no sound
  emi-live --camera rtsp://host/stream  a network camera
  emi-live talk.mp4                     a file: the same numbers on every run
  emi-live talk.mp4 --json - | jq .intensities
  emi doctor                            what works here, and what to fix

Everything stays on this machine. Intensities tell what shows, not what a person feels.
"""

app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)

WATCH = "What to watch"
TELL = "Where it goes"
TUNE = "How it runs"


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def live(
    media: Annotated[
        str | None,
        typer.Argument(help="A media file, as with --input.", metavar="[FILE]", show_default=False),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="Camera index, device path or URL, or ros2:/TOPIC.",
            rich_help_panel=WATCH,
            metavar="N|PATH|URL",
            autocompletion=complete_camera,
        ),
    ] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", help="A media file.", rich_help_panel=WATCH, metavar="FILE")
    ] = None,
    mic: Annotated[
        str | None,
        typer.Option(
            help="Microphone by name or index, or ros2:/TOPIC; 'none' for no sound. Default: the system's or "
            "the file's.",
            rich_help_panel=WATCH,
            metavar="NAME|none",
            autocompletion=complete_microphone,
        ),
    ] = None,
    audio_track: Annotated[
        str | None,
        typer.Option(
            help="Sound track of a file, by number or language. Default: the file's default track.",
            rich_help_panel=WATCH,
            metavar="N|LANG",
        ),
    ] = None,
    video_track: Annotated[
        str | None,
        typer.Option(
            help="Picture track of a file, by number or language.", rich_help_panel=WATCH, metavar="N|LANG"
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Run a scripted demo instead of media.", rich_help_panel=WATCH),
    ] = False,
    json_: Annotated[
        str | None,
        typer.Option(
            "--json",
            help="Write one JSON object per line; '-' = standard output.",
            rich_help_panel=TELL,
            metavar="FILE|-",
        ),
    ] = None,
    publish: Annotated[
        str | None,
        typer.Option(
            help="Publish estimates over ZeroMQ, e.g. tcp://127.0.0.1:5561.",
            rich_help_panel=TELL,
            metavar="ADDRESS",
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            help="Show a page with your picture, e.g. 8765 or 127.0.0.1:8765. Needs the extra `web`.",
            rich_help_panel=TELL,
            metavar="PORT|ADDRESS",
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Send estimates to a program of another kind: lsl:, osc:HOST:PORT, mqtt:, ros2:TOPIC, … "
            "Repeatable. Each needs the extra of its name.",
            rich_help_panel=TELL,
            metavar="KIND:ADDRESS",
        ),
    ] = None,
    marks: Annotated[
        list[str] | None,
        typer.Option(
            help="Take markers of other programs: lsl:NAME, osc:PORT. Repeatable.",
            rich_help_panel=WATCH,
            metavar="KIND:ADDRESS",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Serve figures for Prometheus, e.g. 9464. Needs the extra `metrics`.",
            rich_help_panel=TELL,
            metavar="PORT|ADDRESS",
        ),
    ] = None,
    lan: Annotated[
        bool,
        typer.Option(
            "--lan", help="Let other machines read --to and --metrics, in clear text.", rich_help_panel=TELL
        ),
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Record features, words, states and estimates, no picture and no sound; --input replays it.",
            rich_help_panel=TELL,
            metavar="FILE.mcap",
        ),
    ] = None,
    record_media: Annotated[
        bool,
        typer.Option(
            "--record-media",
            help="With --record: picture and sound too. Needs the extra `foxglove`.",
            rich_help_panel=TELL,
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="At the end, save the view as an SVG picture.", rich_help_panel=TELL, metavar="FILE.svg"
        ),
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Append to the file of --json.", rich_help_panel=TELL)
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace the files of --json, --record and --picture.", rich_help_panel=TELL
        ),
    ] = False,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="The terminal view.", rich_help_panel=TELL)] = True,
    config: Annotated[
        str | None,
        typer.Option(
            help="A preset's name or a TOML file.",
            rich_help_panel=TUNE,
            metavar="PRESET|FILE",
            autocompletion=complete_preset,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other setting, e.g. window.hop_s=0.1. Repeatable.",
            rich_help_panel=TUNE,
            metavar="KEY=VALUE",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="live: estimate at once, from what has arrived. exact: wait for every frame. "
            "Default: exact for files, else live.",
            rich_help_panel=TUNE,
            metavar="live|exact",
            autocompletion=complete_mode,
        ),
    ] = None,
    list_devices: Annotated[
        bool,
        typer.Option("--list-devices", help="Show cameras and microphones, and exit.", rich_help_panel=WATCH),
    ] = False,
    duration: Annotated[
        float | None, typer.Option(help="Stop after this many seconds.", rich_help_panel=TUNE, metavar="S")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"Fusion engine: {', '.join(ENGINES)}.",
            rich_help_panel=TUNE,
            metavar="NAME",
            autocompletion=complete_engine,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit if that engine cannot run; use no other one.", rich_help_panel=TUNE
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your own checkpoint.", rich_help_panel=TUNE, metavar="FILE")
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            help="Smooth intensities over this many seconds; 0: not at all. Exact mode never does.",
            rich_help_panel=TUNE,
            metavar="S",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="A neutral of one's own: off; running: learned all the time; calibrate: learned in five "
            "seconds of rest at the start.",
            rich_help_panel=TUNE,
            metavar="off|running|calibrate",
        ),
    ] = None,
    audio_context: Annotated[
        str | None,
        typer.Option(
            help="With --config taemi: how audio frames are computed. cached, recompute: once, from the last "
            "seconds; full: again at each hop, from the last 12 s (slow).",
            rich_help_panel=TUNE,
            metavar="cached|recompute|full",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never use the network.", rich_help_panel=TUNE)
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Log to standard error, and show tracebacks.", rich_help_panel=TUNE),
    ] = False,
    timings: Annotated[
        bool,
        typer.Option(
            "--timings",
            help="Print how long each step of the start took, and when each modality was live.",
            rich_help_panel=TUNE,
        ),
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"emi-live {installed_version('emi-live')}")
        return
    if list_devices:
        from rich.console import Console

        from emi_live.cli.doctor import show_devices

        show_devices(Console())
        return
    with report_errors(debug):
        from emi_live.bundle import with_tuned_encoders
        from emi_live.config import load_config

        overrides = _overrides(
            {
                "source.camera": _camera(camera),
                "source.input": _input(media, input_),
                "source.mic": mic,
                "source.audio_track": audio_track,
                "source.video_track": video_track,
                "mode": mode,
                "duration_s": duration,
                "fusion.engine": engine,
                "fusion.strict": strict or None,
                "fusion.checkpoint": checkpoint,
                "fusion.smooth_s": smooth,
                "window.baseline": baseline,
                "audio.context": audio_context,
                "models.offline": offline or None,
                "output.json_path": json_,
                "output.append": append or None,
                "output.force": force or None,
                "output.publish": publish,
                "output.web": web,
                "output.to": to or None,
                "output.marks": marks or None,
                "output.metrics": metrics,
                "output.lan": lan or None,
                "output.record": record,
                "output.record_media": record_media or None,
                "output.ui": None if ui else False,
            }
        )
        settings = with_tuned_encoders(load_config(config, set_ or (), overrides))
        _check_source(settings, demo)
        check_before_loading(settings, picture)

        from rich.console import Console

        from emi_live.cli.session import run_session, set_up_logging

        console = Console(stderr=True)
        set_up_logging(debug, settings.output.ui)
        run_session(settings, console, demo=demo, picture=picture, timings=timings)


def main() -> NoReturn:
    """The `emi-live` command; ends the process.

    It skips the interpreter's own teardown, which takes over a second when torch is loaded. A user who
    pressed Ctrl-C would wait for it, and our own resources are already released.
    """
    try:
        run_app(app, name="emi-live", once=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads the pipe any more
                if stream is not None:  # the caller closed it: `>&-`
                    stream.flush()
        os._exit(code)


def _camera(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _input(media: str | None, named: Path | None) -> Path | None:
    """The input file, given with or without `--input`."""
    if media is None:
        return named
    if named is not None:
        raise ConfigurationError(f"two files are given: {media} and --input {named}; start emi-live for each")
    return media_argument(media)


def _overrides(options: dict[str, Any]) -> dict[str, Any]:
    """Options that were given, nested as the configuration is."""
    nested: dict[str, Any] = {}
    for key, value in options.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _check_source(config: LiveConfig, demo: bool) -> None:
    source = config.source
    chosen = [
        name
        for name, given in (
            ("--demo", demo),
            ("--camera", source.camera is not None),
            ("--input", source.input is not None),
        )
        if given
    ]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} cannot be used together; choose one")
    if demo and config.exact:
        raise ConfigurationError("the demo runs only in live mode; leave out --mode exact")
    if config.output.marks and config.exact:
        raise ConfigurationError("--marks has the times of now, and a file has its own; add --mode live")
    from emi_live.bundle import bundle_of

    if demo and not bundle_of(config).has_demo:
        raise ConfigurationError(f"the demo does not support this bundle; leave out bundle={config.bundle}")
    if not chosen and source.mic in (None, "none"):
        raise ConfigurationError(
            "no source is given: use --camera 0, --input FILE, or --demo (no camera or file needed)"
        )
