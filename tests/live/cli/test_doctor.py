"""`emi doctor` finds what is here and what is not, and exits with 1 only if a check failed."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from emi_live.cli.doctor import bar, dbfs, engines, microphones, models, network, sections, surroundings
from emi_live.cli.emi import GROUP, run_emi
from emi_models.store import ModelStore
from tests.support.pulse import PulseServer

SECTIONS = [
    "this machine",
    "system libraries",
    "cameras",
    "microphones",
    "models",
    "engines",
    "network",
]


def doctor(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        run_emi(["doctor", *args], entry_points(group=GROUP))
    return ended.value.code, capsys.readouterr().out


def test_it_tells_machines_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(capsys, "--quick", "--json")
    found: dict[str, Any] = json.loads(out)
    assert list(dict.fromkeys(check["section"] for check in found["checks"])) == SECTIONS
    assert {check["state"] for check in found["checks"]} <= {"ok", "warn", "fail"}
    assert found["runs"] is ("fail" not in {check["state"] for check in found["checks"]})
    assert code == (0 if found["runs"] else 1)
    for check in found["checks"]:
        assert check["says"]
        assert check["fix"] or check["state"] == "ok", check


def test_it_tells_people_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(capsys, "--quick")
    assert all(f"\n{title}\n" in out for title in SECTIONS)
    assert "emi-live can run" in out if code == 0 else "cannot run" in out
    lines = out.splitlines()
    troubles = [index for index, line in enumerate(lines) if line.startswith(("  warn ", "  fail "))]
    assert all(lines[index + 1].startswith("       try: ") for index in troubles)


def test_speed_is_left_out_of_a_quick_look_only() -> None:
    titles = [title for title, _ in sections(False, lambda _: None)]
    assert titles == [*SECTIONS, "speed"]


def test_an_empty_store_says_what_would_be_fetched_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMI_MODEL_DIR", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    store = ModelStore(tmp_path)
    (face,) = [check for check in models(store) if check.about == "face-landmarker"]
    assert face.state == "warn"
    assert "3.8 MB from " in face.says
    assert "index.example, else storage.googleapis.com" in face.says
    assert face.fix == "emi models pull face-landmarker"
    hosts = next(check for check in network(store) if check.about == "network").facts["hosts"]
    assert "storage.googleapis.com" in hosts


def test_a_store_that_is_kept_off_the_network_fetches_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, offline=True)
    (face,) = [check for check in models(store) if check.about == "face-landmarker"]
    assert "not fetched" in face.says
    (about, *_) = network(store)
    assert about.facts["hosts"] == []


def test_a_damaged_model_is_a_failure(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, offline=True)
    path = store.status("face-landmarker").path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0" * store.entry("face-landmarker").size)
    (face,) = [check for check in models(store) if check.about == "face-landmarker"]
    assert face.state == "fail"


def test_engines_that_are_not_installed_are_no_warning() -> None:
    (check,) = engines()
    assert check.state == "ok"
    assert "onnxruntime" in check.facts["here"]
    assert not {"tensorrt", "tensorrt-rtx"} & set(check.facts["here"])


def test_telemetry_is_looked_up_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(tmp_path, offline=True)
    for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "1")
    assert {check.state for check in network(store) if check.about == "telemetry"} == {"ok"}
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    (first, *_) = [check for check in network(store) if check.about == "telemetry"]
    assert first.state == "warn"
    assert "ORT_DISABLE_TELEMETRY" in first.says
    assert first.fix == "set it to 1, or unset it"


def test_versions_are_those_that_are_installed() -> None:
    (check, *_) = surroundings()
    assert check.state == "ok"
    assert check.facts["torch"] in check.says


@pytest.mark.slow
def test_a_silent_microphone_is_called_muted(pulse: PulseServer) -> None:
    levels: list[float] = []
    *inputs, heard = microphones(0.3, levels.append)
    assert inputs
    assert (heard.about, heard.state) == ("level", "warn")
    assert "muted" in heard.says
    assert heard.fix.startswith("pactl ")
    assert levels
    assert heard.facts["peak_dbfs"] == max(round(level, 1) for level in levels)


@pytest.mark.parametrize(
    ("amplitude", "level", "cells"), [(1.0, 0.0, 20), (0.1, -20.0, 15), (1e-4, -80.0, 0), (0.0, -120.0, 0)]
)
def test_the_level_meter(amplitude: float, level: float, cells: int) -> None:
    assert dbfs(amplitude) == pytest.approx(level)
    assert bar(dbfs(amplitude)) == "[" + "#" * cells + "-" * (20 - cells) + "]"
