"""`emi bench`: measure emi-live on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from emi_bench.live import LiveReport
    from emi_bench.stats import Distribution
    from emi_bench.systems_run import Run

__all__ = ["app"]

app = typer.Typer(help="Measure emi-live on this machine.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def bench() -> None:
    """Measure emi-live on this machine; every table names machine, versions and n."""


@app.command()
def live(
    input_: Annotated[
        Path | None, typer.Option("--input", help="A media file, played at its own pace.")
    ] = None,
    camera: Annotated[str | None, typer.Option(help="Camera index, path or URL.")] = None,
    mic: Annotated[str | None, typer.Option(help="Microphone; 'none' for no sound.")] = None,
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting, as in emi-live.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report here, for machines.")] = None,
) -> None:
    """How fresh are the estimates? Latency from capture to estimate, drops, memory, at real pace.

    For example: [bold]emi bench live --input talk.mp4[/bold]
    """
    from rich.console import Console

    from emi_bench.live import measure_live
    from emi_live.config import load_config
    from emi_live.errors import ConfigurationError

    source = {"input": input_, "camera": int(camera) if camera and camera.isdecimal() else camera, "mic": mic}
    overrides: dict[str, object] = {
        "source": {key: value for key, value in source.items() if value is not None}
    }
    if duration is not None:
        overrides["duration_s"] = duration
    if (input_ is None) == (camera is None):
        raise ConfigurationError("say what to run on: --input FILE, or --camera N (then also --duration S)")
    config = load_config(settings=set_ or (), overrides=overrides)
    console = Console()
    with console.status("running at real pace …"):
        report = measure_live(config)
    _show(report, console)
    if json_ is not None:
        json_.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")


@app.command()
def systems(
    data: Annotated[Path, typer.Option("--data", help="A folder of clips, as `emi synth` makes it.")],
    out: Annotated[Path, typer.Option("--out", help="Where systems.md, .json and .png go.")] = Path(
        "docs/benchmarks"
    ),
    runs: Annotated[
        Path, typer.Option("--runs", help="Where each run's result is kept, so that it is done once.")
    ] = Path("out/systems"),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many a stage.")] = 12,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time, each on one core.")] = 2,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A variant's name; give it again for another.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
) -> None:
    """Which system is best, and what is each part of TAEMI for? Trains and compares them all.

    The same command goes on where it was interrupted.

    For example: [bold]emi synth --clips 4000 --out synth && emi bench systems --data synth[/bold]
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from emi_bench.systems import compare_systems

    console = Console(stderr=True)
    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def report(done: int, total: int, run: Run | None) -> None:
            bar.update(task, completed=done, total=total)
            if run is not None:
                said = f"{run.variant}, seed {run.seed}: rho {run.rho:.4f}, {run.wall_s:.0f} s"
                bar.console.print(f"{said} ({done} of {total})", highlight=False)

        comparison = compare_systems(
            data, out, runs, seeds=seeds, epochs=epochs, jobs=jobs, only=only or (), report=report
        )
    if json_:
        typer.echo(json.dumps(comparison.to_json()))
        return
    typer.echo((out / "systems.md").read_text(encoding="utf-8"), nl=False)


def _show(report: LiveReport, console: Console) -> None:
    console.print(report.machine.line(), style="dim")
    for part in report.parts:
        console.print(part, style="dim", highlight=False)
    console.print(_latency_table(report))
    console.print(
        f"{report.estimates} estimates in {report.seconds:.1f} s; "
        f"{report.face_frames_per_s:.1f} face frames/s analysed; {report.cpu_cores:.2f} cores busy"
    )
    console.print(
        f"memory: peak {report.peak_rss_mib:.0f} MiB, "
        f"grew by {report.rss_growth_mib:+.1f} MiB in the second half"
    )
    drops = ", ".join(f"{name} {count}" for name, count in report.drops.items()) or "none"
    console.print(f"drops: {drops}")


def _latency_table(report: LiveReport) -> Table:
    from rich.table import Table

    table = Table("milliseconds", "n", "min", "mean", "median", "p90", "p95", "p99", "max")
    rows: dict[str, Distribution | None] = {
        "capture to estimate": report.capture_to_estimate_ms,
        "age of the newest face": report.vision_age_ms,
        "age of the newest voice": report.audio_age_ms,
        "window": report.window_ms,
        "fusion": report.fusion_ms,
    }
    for name, row in rows.items():
        if row is None:
            table.add_row(name, "0", *["-"] * 7)
            continue
        values = (row.min, row.mean, row.median, row.p90, row.p95, row.p99, row.max)
        table.add_row(name, str(row.n), *(f"{value:.2f}" for value in values))
    return table
