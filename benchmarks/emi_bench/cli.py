"""`emi bench`: measure emi-live on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emi_bench.bus.command import bus
from emi_bench.drift.command import drift
from emi_bench.fusion.command import fusion
from emi_bench.live.command import live
from emi_bench.report.command import report
from emi_bench.speech.command import speech

if TYPE_CHECKING:
    from emi_bench.systems_run import Run

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """Measure emi-live on this machine; every table names machine, versions and n.

    For example: [bold]emi bench fusion --quick[/bold], [bold]emi bench live --quick[/bold].
    With [bold]--quick[/bold] each takes two minutes at most on two cores.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(bus)
app.command()(drift)
app.command()(fusion)
app.command()(live)
app.command()(speech)
app.command()(report)


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

    from emi_live.cli.clips import check_data
    from emi_live.cli.preflight import check_out_folder

    check_data(data)
    check_out_folder("--out", out)
    check_out_folder("--runs", runs)

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
