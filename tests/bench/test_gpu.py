"""`emi bench gpu` on stand-ins: that it continues, records failures and makes the page needs no GPU."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from emi_bench.gpu import GpuBenchError, Piece, main, measure_gpu, pieces, run_piece
from emi_bench.report import read_report

REPORT = Path(__file__).parents[2] / "docs" / "benchmarks" / "bus-2core.json"


def silent(line: str) -> None:
    assert line


class Stand:
    """Measures no piece: copies a report, or fails."""

    def __init__(self, **reasons: str) -> None:
        self.reasons = reasons
        self.asked: list[str] = []

    def __call__(self, piece: Piece, file: Path, limit_s: float) -> str:
        self.asked.append(piece.name)
        if reason := self.reasons.get(piece.name, ""):
            return reason
        shutil.copy(REPORT, file)
        return ""


def three() -> list[Piece]:
    return [Piece(name, ("-c", "pass")) for name in ("one", "two", "three")]


def test_every_engine_of_the_gpu_is_in_a_piece_with_others_of_its_kind_alone() -> None:
    from emi_bench.fusion.settings import ENGINES, NETWORKS

    wanted = pieces("cuda", None)
    named = [arg for piece in wanted for flag, arg in pairwise(piece.command) if flag == "--engine"]
    on_gpu = [engine.name for engine in ENGINES if engine.device == "cuda"]
    assert sorted(named) == sorted(on_gpu * len(NETWORKS))
    assert len({piece.name for piece in wanted}) == len(wanted)
    assert sum("fusion.device=cuda" in piece.command for piece in wanted) == 3


def test_a_piece_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    results = measure_gpu(
        tmp_path, three(), silent, run=Stand(two="SM90 is not supported | by it"), figure=False
    )
    assert [each.state for each in results] == ["done", "failed", "done"]
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| two | SM90 is not supported / by it |" in page
    summary = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [each["state"] for each in summary["pieces"]] == ["done", "failed", "done"]


def test_what_was_measured_is_kept_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    measure_gpu(tmp_path, three(), silent, run=Stand(two="lost"), figure=False)
    (tmp_path / "three.json").write_text('{"bench": "bus"', encoding="utf-8")  # torn
    again = Stand()
    results = measure_gpu(tmp_path, three(), silent, run=again, figure=False)
    assert again.asked == ["two", "three"]
    assert [each.state for each in results] == ["kept", "done", "done"]
    assert "could not be measured" not in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_nothing_measured_is_an_error(tmp_path: Path) -> None:
    stand = Stand(one="no driver", two="no driver", three="no driver")
    with pytest.raises(GpuBenchError, match="driver"):
        measure_gpu(tmp_path, three(), silent, run=stand, figure=False)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import sys; sys.exit('error: no such engine')", "no such engine"),
        ("import time; print('loading', flush=True)\nwhile True: time.sleep(1)", "stopped after 1 s"),
    ],
    ids=["crash", "error", "hang"],
)
def test_a_process_that_crashes_fails_or_hangs_gives_its_reason(
    tmp_path: Path, code: str, reason: str
) -> None:
    assert reason in run_piece(Piece("it", ("-c", code)), tmp_path / "it.json", 1.0)


def test_a_report_that_was_written_by_the_limit_counts(tmp_path: Path) -> None:
    code = (
        "import shutil, signal, sys, time\n"
        f"save = lambda *_: (shutil.copy({str(REPORT)!r}, sys.argv[2]), sys.exit(130))\n"
        "signal.signal(signal.SIGINT, save)\n"
        "while True: time.sleep(0.05)"
    )
    assert run_piece(Piece("it", ("-c", code)), tmp_path / "it.json", 1.0) == ""
    read_report(tmp_path / "it.json")


def test_without_a_gpu_it_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--out", str(tmp_path / "gpu")]) == 1
    said = capsys.readouterr().err
    assert "nvidia-smi" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "gpu").exists()


@pytest.mark.slow
def test_on_the_cpu_it_measures_an_engine_and_makes_the_page(tmp_path: Path) -> None:
    wanted = [each for each in pieces("cpu", None, quick=True) if each.name == "fusion-compact-onnxruntime"]
    (result,) = measure_gpu(tmp_path, wanted, silent, limit_s=200.0, figure=False)
    assert result.state == "done", result.reason
    assert "onnxruntime-cpu-1t" in (tmp_path / "gpu.md").read_text(encoding="utf-8")
