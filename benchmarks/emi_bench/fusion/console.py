"""From settings to a page on standard output and a file: what both doors lead to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from emi_bench.fusion.engines import choose
from emi_bench.fusion.page import page
from emi_bench.fusion.settings import SettingsError
from emi_bench.partial import keeping_what_was_found, write_report

if TYPE_CHECKING:
    from pathlib import Path

    from emi_bench.fusion.settings import FusionSettings

__all__ = ["bench_fusion"]


def bench_fusion(settings: FusionSettings, json_path: Path | None) -> None:
    """Measure, print, and write the report for machines if a path is given; progress goes to standard error.

    Raises:
        EmiError: nothing could be measured; one line says why.
    """
    if json_path is not None and not json_path.parent.is_dir():
        raise SettingsError(f"--json {json_path}: there is no folder {json_path.parent}; make it first")
    choose(settings.checked(), ("cpu", "cuda"))  # a wrong name is told of before torch is loaded
    if settings.checkpoint is not None:
        from emi_models.checkpoint import read_header

        read_header(settings.checkpoint)
    from emi_bench.fusion.run import measure_fusion

    with keeping_what_was_found(json_path):
        report = measure_fusion(settings, _say)
    sys.stdout.write(page(report))
    write_report(json_path, report)


def _say(line: str) -> None:
    sys.stderr.write(f"… {line}\n")
    sys.stderr.flush()
