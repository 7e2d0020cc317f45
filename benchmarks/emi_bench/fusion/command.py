"""`emi bench fusion`: the door with typer; `python -m emi_bench.fusion` is the one without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from emi_bench.fusion.settings import FusionSettings, SettingsError

__all__ = ["fusion"]

DEFAULT = FusionSettings()


def fusion(
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="An engine's name; repeat it. Default: all."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help="compact, compact-12s or taemi; repeat it. Default: all."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Measure this checkpoint in place of the networks.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", help="Windows in a call; repeat it. Default: 1, 4, 16, 64.")
    ] = None,
    n: Annotated[int, typer.Option(help="Timed calls of each engine and case.")] = DEFAULT.n,
    gap_s: Annotated[float, typer.Option(help="Idle before each sparse call; 0: none.")] = DEFAULT.gap_s,
    budget_s: Annotated[float, typer.Option(help="Work of a case, gaps apart.")] = DEFAULT.budget_s,
    parity_windows: Annotated[int, typer.Option(help="Random windows to compare.")] = DEFAULT.parity_windows,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="Only this. Default: both, where there are both.")
    ] = None,
    torch_threads: Annotated[int | None, typer.Option(help="PyTorch's threads. Default: its choice.")] = None,
    streams: Annotated[bool, typer.Option(help="Also hop by hop, as in live use.")] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: small batches, few calls, no torch.compile.")
    ] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report here, for machines.")] = None,
) -> None:
    """How fast is each fusion engine here, is it right, and how far is it from what the machine could do?

    For example: [bold]emi bench fusion --quick[/bold]
    """
    from emi_bench.fusion.console import bench_fusion
    from emi_live.errors import ConfigurationError

    settings = FusionSettings(
        engines=tuple(engine or ()),
        networks=tuple(network or ()),
        checkpoint=checkpoint,
        batches=tuple(batch or DEFAULT.batches),
        n=n,
        gap_s=gap_s,
        budget_s=budget_s,
        parity_windows=parity_windows,
        device=device,
        torch_threads=torch_threads,
        streams=streams,
        quick=quick,
    )
    try:
        bench_fusion(settings, json_)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error
