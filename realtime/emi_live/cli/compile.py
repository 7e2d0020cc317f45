"""`emi compile`: build a checkpoint's plan for TensorRT or TensorRT-RTX, for this machine or another one."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from emi_live.cli import ENDING
from emi_live.cli.errors import DebugOption, say
from emi_live.cli.options import check_checkpoint, check_out_folder
from emi_live.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from emi_engine.tensorrt.build import BuildProgress
    from emi_engine.tensorrt.plans import Plan
    from emi_models.checkpoint import LoadedCheckpoint

__all__ = ["app", "building", "tell_plan"]

HELP = """Build a checkpoint's plan: its network, compiled for a GPU.

[bold]Examples[/bold]

  emi compile --engine tensorrt-rtx
  emi compile --engine tensorrt-rtx --target sm89 --out compact.plan
  emi compile --engine tensorrt --precision bf16 --checkpoint mine.safetensors
  emi compile --engine tensorrt-rtx --batch 16 --out many.plan

TensorRT-RTX builds on any machine, for the GPUs that --target names; TensorRT
builds for the GPU of this machine. FILE.json next to a plan describes it:
checkpoint, library, GPU, shapes, precision. A plan that does not match the
installation is refused. It is built again only with --force.

Without --out the plan goes into your cache, where the engine looks for it.
"""
WINDOWS: Final = 8  # random windows to measure the error of a precision; takes a few seconds

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


class EngineName(StrEnum):
    """A library that runs plans."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class PrecisionName(StrEnum):
    """Type of weights and activations."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


@app.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def compile_(
    engine: Annotated[EngineName, typer.Option(help="The library that will run the plan.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint's file. Default: the packaged one.", metavar="FILE"),
    ] = None,
    precision: Annotated[
        PrecisionName, typer.Option(help="Number format of the network.")
    ] = PrecisionName.fp16,
    batch: Annotated[int, typer.Option(help="Windows in one run: 1 for one person.", metavar="N")] = 1,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A compute capability such as sm89; repeatable. Default: all.",
            metavar="SM",
        ),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Allow new weights later; may run slower."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The plan's file.", metavar="FILE")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build it even if a plan exists.")] = False,
    debug: DebugOption = False,
) -> None:
    from rich.console import Console

    from emi_engine import EngineUnavailableError
    from emi_engine.load import runtime_missing

    if reason := runtime_missing(engine.value):
        raise EngineUnavailableError(f"{engine.value}: {reason}, or choose another engine")
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    if out is not None:
        check_out_folder("--out", out.parent)

    from emi_engine.tensorrt.build import PlanJob
    from emi_engine.tensorrt.plans import find_library
    from emi_live.bundle import default_bundle
    from emi_models.checkpoint import load_checkpoint

    console = Console(stderr=True)
    library = find_library(engine.value)
    try:
        job = PlanJob.of(library, precision.value, batch=batch, targets=target or (), refit=refit)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if out is None and (target or refit):
        raise ConfigurationError(
            "the cache holds only plans for all targets and without refit; give a file with --out"
        )
    path = checkpoint or default_bundle().packaged_checkpoint()
    loaded = load_checkpoint(path)
    with console.status("exporting the network", spinner="line"):
        model = job.model(loaded, path)
    place, origin = out or job.kept_at(loaded, model), job.origin(loaded, model)
    if not force and (plan := job.done(place, origin)) is not None:
        tell_plan(plan, "exists already for the same checkpoint; nothing to do")
        return
    started = time.monotonic()
    with building(console) as progress:
        plan = job.build(place, origin, model, progress)
    took_s = time.monotonic() - started
    tell_plan(plan, f"was built in {took_s:.1f} s by {engine.value} {origin.library_version}")
    if precision is not PrecisionName.fp32:
        _tell_price(loaded, precision, console)


@contextmanager
def building(console: Console) -> Iterator[BuildProgress]:
    """Show the build's phase; Ctrl-C and other signals to end do so, and raise KeyboardInterrupt after it.

    The library calls back during the build and cannot pass on an exception, so none may be raised there.
    """
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    with console.status("building", spinner="line") as status:

        def progress(done: int, total: int, phase: str) -> bool:
            status.update(f"building: {phase}, {done} of {total}")
            return not stopped

        before = {number: signal.signal(number, stop) for number in ENDING}
        try:
            yield progress
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if stopped:
                raise KeyboardInterrupt


def tell_plan(plan: Plan, what: str) -> None:
    """Three lines on a plan: its path, what it was built from, where it runs."""
    manifest = plan.manifest
    where = ", ".join(manifest.targets) or f"{manifest.gpu} ({manifest.capability}) only"
    say(f"{plan.path} {what}")
    say(
        f"  {manifest.precision}, batch {manifest.batch}, checkpoint {manifest.checkpoint_sha256[:12]}…, "
        f"{'refittable, ' if manifest.refittable else ''}{len(plan.data) / 1e6:.1f} MB"
    )
    say(f"  runs on {where}")


def _tell_price(loaded: LoadedCheckpoint, precision: PrecisionName, console: Console) -> None:
    """How much this precision changes this checkpoint's intensities, and a warning if that is much."""
    from emi_engine.parity import precision_price
    from emi_engine.protocol import TOLERANCES

    price = precision_price(loaded, precision.value, WINDOWS)
    say(
        f"  {precision.value} changes an intensity by {price:.2g} or less (PyTorch, {WINDOWS} random windows)"
    )
    if price > TOLERANCES[precision.value]:
        console.print(
            f"that is more than {TOLERANCES[precision.value]:g}, so an engine may refuse to run; "
            "choose another precision",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
