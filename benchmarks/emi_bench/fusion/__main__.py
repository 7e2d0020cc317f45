"""`python -m emi_bench.fusion`: the benchmark where there is no typer, as on a bare GPU machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emi_bench.fusion.console import bench_fusion
from emi_bench.fusion.settings import FusionSettings, SettingsError
from emi_models.errors import CheckpointError, EmiError
from emi_models.printable import accept_any_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the arguments say; exit code: 0 done, 1 nothing can run here, 2 bad use, 130 interrupted."""
    accept_any_text()
    default = FusionSettings()
    parser = argparse.ArgumentParser(
        prog="python -m emi_bench.fusion", description="How fast is each fusion engine on this machine?"
    )
    add = parser.add_argument
    add(
        "--engine", action="append", default=[], help="an engine's name; repeat it; default: all that can run"
    )
    add(
        "--network",
        action="append",
        default=[],
        help="compact, compact-12s or taemi; repeat it; default: all",
    )
    add("--checkpoint", type=Path, help="measure this checkpoint in place of the networks")
    add("--batch", type=int, action="append", help="windows in a call; repeat it; default: 1, 4, 16, 64")
    add("--n", type=int, default=default.n, help="timed calls of each engine and case (%(default)s)")
    add("--gap-s", type=float, default=default.gap_s, help="idle before a sparse call; 0: none (%(default)s)")
    add(
        "--budget-s",
        type=float,
        default=default.budget_s,
        help="work a case may take, gaps apart (%(default)s)",
    )
    add("--parity-windows", type=int, default=default.parity_windows, help="random windows (%(default)s)")
    add("--device", choices=("cpu", "cuda"), help="only this; default: both, where there are both")
    add("--torch-threads", type=int, help="PyTorch's threads; default: its own choice")
    add("--no-streams", action="store_true", help="leave out what is measured hop by hop")
    add("--quick", action="store_true", help="a minute or two: small batches, few calls, no torch.compile")
    add("--json", type=Path, metavar="FILE", help="write the report here, for machines")
    given = parser.parse_args(arguments)
    settings = FusionSettings(
        engines=tuple(given.engine),
        networks=tuple(given.network),
        checkpoint=given.checkpoint,
        batches=tuple(given.batch or default.batches),
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
