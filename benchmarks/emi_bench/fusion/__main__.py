"""`python -m emi_bench.fusion`: the benchmark where typer is not installed, as on a bare GPU machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emi_bench.fusion.settings import FusionSettings, SettingsError, choose_engines
from emi_bench.report import give_report, keep_if_interrupted
from emi_models.console import accept_any_text
from emi_models.errors import CheckpointError, EmiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.fusion.run import Share

__all__ = ["bench_fusion", "main", "options"]


def bench_fusion(settings: FusionSettings, json_path: str | None, share: Share | None = None) -> None:
    """Measure, print the page, and write the report as JSON if a path is given; progress to standard error.

    `share` is as of `measure_fusion`.

    With the path `-`, JSON alone goes to standard output.

    Raises:
        EmiError: nothing could be measured; the message is one line.
    """
    if json_path not in (None, "-") and not Path(json_path).parent.is_dir():
        folder = Path(json_path).parent
        raise SettingsError(f"--json {json_path}: there is no folder {folder}; make it first")
    choose_engines(settings.checked(), ("cpu", "cuda"))  # refuses a wrong name before torch is loaded
    if settings.checkpoint is not None:
        from emi_models.checkpoint import read_header

        read_header(settings.checkpoint)
    from emi_bench.fusion.run import measure_fusion

    with keep_if_interrupted(json_path):
        report = measure_fusion(settings, _say, share)
    give_report(json_path, report)


def _say(line: str) -> None:
    sys.stderr.write(f"… {line}\n")
    sys.stderr.flush()


def options() -> argparse.ArgumentParser:
    """The options of `emi bench fusion`, without typer; a test holds them to be the same."""
    default = FusionSettings()
    parser = argparse.ArgumentParser(
        prog="python -m emi_bench.fusion",
        description="How fast is each fusion engine on this machine?",
        epilog="example: python -m emi_bench.fusion --quick --json fusion.json",
    )
    add = parser.add_argument
    add("--engine", action="append", default=[], help="an engine's name; may be repeated; default: all")
    networks = "compact, compact-12s or taemi; may be repeated; default: all"
    add("--network", action="append", default=[], help=networks)
    add("--checkpoint", type=Path, help="measure this checkpoint in place of the networks")
    batches = "windows in a call; may be repeated; default: 1, 4, 16, 64"
    add("--batch", type=int, action="append", help=batches)
    add("--n", type=int, default=default.n, help="timed calls of each engine and case (%(default)s)")
    gap = "idle seconds before a sparse call; 0: none (%(default)s)"
    add("--gap-s", type=float, default=default.gap_s, help=gap)
    budget = "seconds of work a case, without gaps (%(default)s)"
    add("--budget-s", type=float, default=default.budget_s, help=budget)
    add("--parity-windows", type=int, default=default.parity_windows, help="random windows (%(default)s)")
    add("--device", choices=("cpu", "cuda"), help="only this device; default: all that there are")
    add("--torch-threads", type=int, help="PyTorch's threads; default: its own")
    add("--no-streams", action="store_true", help="leave out the streams, which are measured hop by hop")
    add("--quick", action="store_true", help="minutes: small batches, few calls, no torch.compile")
    add("--json", metavar="FILE", help="write the report to this file as JSON; - for standard output")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the arguments say. Exit code: 0 done, 1 nothing can run, 2 bad use, 130 interrupted."""
    accept_any_text()
    given = options().parse_args(arguments)
    settings = FusionSettings(
        engines=tuple(given.engine),
        networks=tuple(given.network),
        checkpoint=given.checkpoint,
        batches=tuple(given.batch or FusionSettings().batches),
        n=given.n,
        gap_s=given.gap_s,
        budget_s=given.budget_s,
        parity_windows=given.parity_windows,
        device=given.device,
        torch_threads=given.torch_threads,
        streams=not given.no_streams,
        quick=given.quick,
    )
    try:
        bench_fusion(settings, given.json)
    except EmiError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, SettingsError | CheckpointError) else 1
    except KeyboardInterrupt:
        return 130  # as `emi` does
    return 0


if __name__ == "__main__":
    sys.exit(main())
