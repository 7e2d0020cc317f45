"""`emi bench`: measure emi-live on this machine."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_bench.bus.command import bus
from emi_bench.drift.command import drift
from emi_bench.fusion.command import fusion
from emi_bench.live.command import live
from emi_bench.report.command import report
from emi_bench.speech.command import speech
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from emi_bench.systems_run import Run

__all__ = ["app"]

QUICK_VARIANTS: Final = ("taemi", "two_stage", "dual_stage", "semantic_matters")
QUICK_CLIPS: Final = 100

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
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder of clips, as `emi synth` makes it.")
    ] = None,
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
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Two minutes: the four systems, one epoch, one seed, and without --data 100 made-up clips; "
            "shows that it works, not who is best. Nothing is kept.",
        ),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
) -> None:
    """Which system is best, and what is each part of TAEMI for? Trains and compares them all.

    The same command goes on where it was interrupted.

    For example: [bold]emi synth --clips 4000 --out synth && emi bench systems --data synth[/bold],
    or [bold]emi bench systems --quick[/bold]
    """
    with ExitStack() as scratch:
        if quick:
            folder = Path(scratch.enter_context(TemporaryDirectory(prefix="emi-systems-")))
            out, runs, seeds, epochs = folder / "page", folder / "runs", 1, 1
            only = only or list(QUICK_VARIANTS)
            data = data or _made_up(folder / "clips")
        if data is None:
            raise ConfigurationError("say which clips: --data DIR, or --quick for made-up ones")
        _compare(data, out, runs, seeds, epochs, jobs, only or [], json_)


def _made_up(folder: Path) -> Path:
    """A small synthetic corpus, in no time."""
    from emi_models.data.synth import SynthCorpus
    from emi_models.data.synth_config import SMALL_SIZES, SynthConfig
    from emi_models.data.synth_write import write_corpus

    corpus = SynthCorpus(SynthConfig(clips=QUICK_CLIPS, seed=0, sizes=SMALL_SIZES))
    write_corpus(corpus, folder, lambda _done: None, replace=False)
    return folder


def _compare(
    data: Path, out: Path, runs: Path, seeds: int, epochs: int, jobs: int, only: list[str], as_json: bool
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from emi_live.cli.clips import check_data
    from emi_live.cli.preflight import check_out_folder

    check_data(data)
    check_out_folder("--out", out)
    check_out_folder("--runs", runs)

    from emi_bench.systems import compare_systems

    console = Console(stderr=True)
    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def report(done: int, total: int, run: Run | None) -> None:
            bar.update(task, completed=done, total=total)
            if run is not None:
                said = f"{run.variant}, seed {run.seed}: rho {run.rho:.4f}, {run.wall_s:.0f} s"
                bar.console.print(f"{said} ({done} of {total})", highlight=False)

        try:
            comparison = compare_systems(
                data, out, runs, seeds=seeds, epochs=epochs, jobs=jobs, only=only, report=report
            )
        except KeyboardInterrupt:
            kept = len(list(runs.glob("*.json")))
            console.print(f"interrupted: {kept} results are kept in {runs}; the same command goes on")
            raise
    if as_json:
        typer.echo(json.dumps(comparison.to_json()))
        return
    typer.echo((out / "systems.md").read_text(encoding="utf-8"), nl=False)
