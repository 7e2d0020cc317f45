"""Ctrl-C in a benchmark: what was found is kept and marked, and the exit code is that of an interrupt."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from emi_bench.bus import make_packets
from emi_bench.cli import app
from emi_bench.live_report import BusReport
from emi_bench.measurement import Machine
from emi_bench.report import Interrupted, keep_if_interrupted, read_report, write_report
from emi_live.cli.errors import report_errors, run_app


def found() -> BusReport:
    return BusReport(machine=Machine.here(), load_before=1.0, hops=[], floods=[])


def test_what_was_found_is_written_and_the_interrupt_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bus.json"
    with pytest.raises(SystemExit) as ended, report_errors(), keep_if_interrupted(path):
        raise Interrupted(found())
    assert ended.value.code == 130
    kept = json.loads(path.read_text())
    assert (kept["bench"], kept["load_before"], kept["partial"]) == ("bus", 1.0, True)
    assert "marked as partial" in capsys.readouterr().err


def test_without_a_file_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), keep_if_interrupted(None):
        raise Interrupted(found())
    assert capsys.readouterr() == ("", "")
    write_report("-", found())
    assert "partial" not in json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_the_bus_keeps_the_hops_before_it(tmp_path: Path) -> None:
    """The signal comes while the flood runs, by when every hop has been timed."""
    path = tmp_path / "bus.json"
    args = ["bus", "--transport", "inproc", "--n", "100", "--flood", "60", "--json", str(path)]
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 6.0)
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
    assert "PARTIAL" in read_report(path).where_and_when()
