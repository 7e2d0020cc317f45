"""Ctrl-C in a benchmark: what was found is kept and marked, and the exit code is that of an interrupt."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from emi_bench.bus.packets import make_packets
from emi_bench.cli import app
from emi_bench.partial import Interrupted, keeping_what_was_found, write_report
from emi_bench.report.read import read_reports
from emi_live.cli.errors import report_errors, run_app


class Found:
    def to_json(self) -> dict[str, Any]:
        return {"bench": "bus", "schema": 1, "hops": [1]}


def test_what_was_found_is_written_and_the_interrupt_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bus.json"
    with pytest.raises(SystemExit) as ended, report_errors(), keeping_what_was_found(path):
        raise Interrupted(Found())
    assert ended.value.code == 130
    assert json.loads(path.read_text()) == {"bench": "bus", "schema": 1, "hops": [1], "partial": True}
    assert "marked as partial" in capsys.readouterr().err


def test_without_a_file_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), keeping_what_was_found(None):
        raise Interrupted(Found())
    assert capsys.readouterr() == ("", "")
    write_report("-", Found())
    assert "partial" not in json.loads(capsys.readouterr().out)


def test_ctrl_c_in_the_middle_of_the_bus_keeps_the_hops_before_it(tmp_path: Path) -> None:
    """The signal comes while the flood runs, by when every hop has been timed."""
    path = tmp_path / "bus.json"
    args = ["bus", "--transport", "inproc", "--n", "100", "--flood", "60", "--json", str(path)]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 8.0)
    try:
        with pytest.raises(SystemExit) as ended:
            run_app(app, args, "emi bench")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert ended.value.code == 130
    report = json.loads(path.read_text())
    assert report["partial"] is True
    assert 0 < len(report["hops"]) <= len(make_packets()) + 1
    assert report["floods"] == []
    (read,) = read_reports([path])
    assert read.machine.endswith("PARTIAL: the run was interrupted")
