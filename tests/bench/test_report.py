"""Pages and pictures from reports, made of the benches' own types; and files that are no reports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from emi_bench.fusion.report import (
    CaseKey,
    DeviceRates,
    EngineResult,
    FusionReport,
    NetworkFacts,
    Parity,
    Unavailable,
)
from emi_bench.measurement import Distribution, GraphicsCard, Machine
from emi_bench.render import terminal
from emi_bench.report import main, read_report
from emi_models.inputs import TAEMI_SHAPES as SHAPES

REPORT_FILES = [
    path
    for path in sorted((Path(__file__).parents[2] / "docs" / "benchmarks").glob("*.json"))
    if not path.name.startswith(("fuzz", "light", "truth-scores"))
]
L4 = GraphicsCard.parse("NVIDIA L4, 550.54.15, 23034 MiB, 210 MHz, 2040 MHz, Enabled")


def distribution(middle: float) -> Distribution:
    found = Distribution.of([0.9 * middle, middle, 1.5 * middle])
    assert found is not None
    return found


def result(engine: str, median: float, batch: int = 1, gap_s: float = 0.0, n_asked: int = 3) -> EngineResult:
    on_gpu = distribution(median / 2) if "cuda" in engine else None
    return EngineResult(
        case=CaseKey("taemi", "windows", batch, gap_s),
        engine=engine,
        device="cuda" if on_gpu else "cpu",
        precision="fp32",
        n_asked=n_asked,
        wall_ms=distribution(median),
        device_ms=on_gpu,
        windows_per_s=1e3 * batch / median,
        x_eager=median / 25.0,
        x_eager_device=None,
        floor_ms=5.0,
        x_floor=median / 5.0,
    )


@pytest.fixture
def fusion(tmp_path: Path) -> Path:
    assert L4 is not None
    report = FusionReport(
        machine=replace(Machine.here(), gpus=[L4]),
        load_before=0.1,
        torch_threads=2,
        numpy_threads=1,
        settings={},
        seconds=60.0,
        networks=[
            NetworkFacts("taemi", "the paper's sizes", "0" * 64, asdict(SHAPES), 72, 599, 6_440_000, 10**9, 1)
        ],
        rates=[DeviceRates("cpu", "fp32", 1e11, 1e10)],
        unavailable=[Unavailable("taemi", "tensorrt-cuda-fp16", batch, "no | driver") for batch in (1, 4)],
        parity=[
            Parity("taemi", "torch-cpu", "windows", 200, 0.0, 1e-4),
            Parity("taemi", "wrong-cpu", "windows", 200, 0.5, 1e-4),
        ],
        results=[
            result("torch-cpu", 25.0, n_asked=200),
            result("onnxruntime-cpu-1t", 12.5),
            result("torch-cuda-fp32", 3.0),
            result("torch-cpu", 30.0, gap_s=0.2),
            result("torch-cpu", 100.0, batch=4),
        ],
    )
    path = tmp_path / "fusion.json"
    path.write_text(json.dumps(report.to_json()))
    return path


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """As `emi bench bus` writes it, by its own types."""
    from emi_bench.live_report import BusReport, Flood, HopTimes

    hops = [
        HopTimes(
            transport=name,
            packet="vision 58",
            bytes=340,
            gap_ms=gap_ms,
            n=100,
            min_us=40.0,
            mean_us=41.0,
            p50_us=42.0,
            p90_us=43.0,
            p99_us=44.0,
            p999_us=45.0,
            max_us=46.0,
        )
        for name, gap_ms in (("inproc", 0.0), ("tcp", 33.0))
    ]
    flood = Flood(
        transport="inproc",
        packet="vision 58",
        bytes=340,
        seconds=2.0,
        high_water_mark=100,
        published=1000,
        received=750,
        dropped=250,
    )
    path = tmp_path / "bus.json"
    path.write_text(
        json.dumps(BusReport(machine=Machine.here(), load_before=0.1, hops=hops, floods=[flood]).to_json())
    )
    return path


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """As `emi bench live` writes it, by its own types."""
    from emi_bench.live_report import EdgeLosses, LiveReport
    from emi_bench.measurement import UsageSample

    stations = {name: distribution(ms) for name, ms in (("capture", 5.0), ("face", 15.0), ("total", 120.0))}
    report = LiveReport(
        machine=Machine.here(),
        load_before=0.1,
        source="talk.mp4",
        parts=["vision: faces"],
        hop_s=0.2,
        window_s=12.0,
        transport="inproc",
        seconds=10.0,
        warm_up_s=2.0,
        estimates=50,
        face_frames_per_s=29.9,
        stations={"vision": stations},
        per_estimate={},
        capture_to_estimate_ms=None,
        engine_ms=distribution(2.0),
        ages_ms={},
        edges=[EdgeLosses("camera", {"overwritten": 3})],
        usage=[UsageSample(1.0, 900.0, 0.8), UsageSample(2.0, 910.0, 0.9)],
        peak_rss_mib=910.0,
        rss_growth_mib=1.0,
        cpu_cores=0.85,
        flash_beep=None,
    )
    path = tmp_path / "live.json"
    path.write_text(json.dumps(report.to_json()))
    return path


def test_reports_of_all_benches_become_one_page_and_one_picture(
    fusion: Path, live: Path, bus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all"
    assert main([str(fusion), str(live), str(bus), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [f"{out}.md", f"{out}.png"]
    page = (tmp_path / "all.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Fusion engines", "## Live: talk.mp4", "## The bus"
    ]  # fmt: skip
    assert "(all.png)" in page
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_fusion_has_its_engines_in_order_its_floor_and_what_is_wrong(
    fusion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(fusion)]) == 0
    page = capsys.readouterr().out
    first = page.partition("### Taemi, batch 1, back to back")[2].partition("### ")[0]
    engines = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("| `")]
    assert engines == ["`torch-cuda-fp32`", "`onnxruntime-cpu-1t`", "`torch-cpu`"]
    assert "| … on the GPU alone | 3 | 1.35 |" in first
    assert "Floor: 5.00 ms in fp32." in first
    assert "n is less than the 200 asked for" in first
    assert "| **5.0e-01** |" in page  # further off than its precision may be
    assert page.count("- tensorrt-cuda-fp16: no | driver") == 1
    assert "NVIDIA L4, 23034 MiB, driver 550.54.15" in page


def test_live_and_bus_have_their_numbers(live: Path, bus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(live), str(bus)]) == 0
    page = capsys.readouterr().out
    assert "| **picture: in all** | 3 | 108 | 136 | 120 |" in page
    assert "- lost: camera: overwritten 3" in page
    assert "| tcp | vision 58, 33 ms idle | 340 | 100 | 40.0 |" in page
    assert "| inproc | vision 58 | 2.00 | 1000 | 750 | 375 | 0.128 | 25% |" in page


def test_without_matplotlib_it_says_what_to_install_and_the_page_can_be_had(
    fusion: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from emi_bench.report import main, read_report; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(fusion), "--out", str(tmp_path / "page")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "matplotlib" in done.stderr
    assert not (tmp_path / "page.md").exists()
    subprocess.run([*command, "--no-figure"], check=True, capture_output=True)
    assert (tmp_path / "page.md").exists()


def spoiled(path: Path, **changes: Any) -> Path:
    """A copy of a report with other fields."""
    copy = path.with_name(f"spoiled-{'-'.join(changes)}.json")
    copy.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return copy


def test_files_that_are_no_reports_are_one_line(
    fusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.json"
    text.write_text("not JSON")
    other = tmp_path / "other.json"
    other.write_text('{"rows": []}')
    cases = [
        (tmp_path / "absent.json", "JSON"),
        (text, "JSON"),
        (other, "not a report"),
        (spoiled(fusion, results=[{}]), "results[0].case is missing"),
        (spoiled(fusion, seconds="long"), "seconds is 'long'"),
        (spoiled(fusion, numpy_threads=True), "numpy_threads is True"),
        (spoiled(fusion, torch_threads=1.5), "torch_threads is 1.5"),
        (spoiled(fusion, load_before=float("nan")), "load_before is nan"),
        (spoiled(fusion, parity=None), "parity is not an array"),
        (spoiled(fusion, colour="red"), "colour is not a field"),
        (spoiled(fusion, schema=99), "schema 99"),
    ]
    for path, message in cases:
        assert main([str(path)]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_a_place_that_cannot_be_written_is_one_line(
    fusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(fusion), "--out", str(tmp_path / "no" / "folder" / "page")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_card_is_read_from_the_driver_s_line() -> None:
    assert L4 is not None
    assert (
        L4.line() == "NVIDIA L4, 23034 MiB, driver 550.54.15, clock 210 MHz of 2040 MHz, persistence enabled"
    )
    assert GraphicsCard.parse("No devices were found") is None


def test_a_report_that_is_read_and_written_again_is_the_same(fusion: Path, live: Path, bus: Path) -> None:
    for path in (fusion, live, bus):
        assert read_report(path).to_json() == json.loads(path.read_text())


@pytest.mark.parametrize("path", REPORT_FILES, ids=lambda path: path.stem)
def test_every_committed_report_can_be_read_and_nothing_in_it_is_lost(path: Path) -> None:
    found = json.loads(path.read_text())
    again = json.loads(json.dumps(read_report(path).to_json()))
    if found.get("bench") is None:  # the first reports of `emi bench systems`
        for name in ("bench", "schema", "load_before"):
            again.pop(name)
        assert again["machine"].pop("gpus") is None
        for row in (*again["rows"], *(again.get("avoidable") or ())):
            assert (row["variant"].pop("training"), row["variant"].pop("raters")) == ({}, False)
    if found.get("bench") == "serve":  # runs that stopped when somebody was refused or lost
        for load in again["loads"]:
            if "refused" not in found["loads"][0]:
                assert (load.pop("refused"), load.pop("lost"), load.pop("behind")) == (0, 0, 0)
                assert (load.pop("health_ms"), load.pop("hypotheses")) == (None, {})
    assert again == found


def test_files_that_are_not_reports_are_skipped_among_others(
    bus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text("[1]")
    assert main([str(other), str(bus)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("## The bus")
    assert said.err.count("skipped") == 1
    assert main([str(other), str(other)]) == 2


def test_without_anything_to_draw_there_is_a_page_and_no_figure(bus: Path, tmp_path: Path) -> None:
    empty = spoiled(bus, hops=[], floods=[])
    assert main([str(empty), "--out", str(tmp_path / "empty")]) == 0
    assert "png" not in (tmp_path / "empty.md").read_text()
    assert not (tmp_path / "empty.png").exists()


def test_reports_can_be_read_where_little_is_installed(fusion: Path, live: Path, bus: Path) -> None:
    absent = ("zmq", "pydantic", "rich", "typer", "psutil", "emi_live", "torch")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from emi_bench.report import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(fusion), str(live), str(bus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n## ") == 2


@pytest.mark.parametrize("path", REPORT_FILES, ids=lambda path: path.stem)
def test_every_committed_report_fits_a_terminal_of_80_columns(path: Path) -> None:
    assert max(map(len, terminal(read_report(path).page(), 80).splitlines())) <= 80
