"""`emi bench serve` on a clip, with one session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emi_bench.cli import app
from emi_bench.report import read_report
from emi_bench.serve import measure_serve
from emi_bench.serve_report import ServeReport
from emi_live.cli.errors import run_app
from emi_live.errors import SourceError, StageError


@pytest.mark.assets
@pytest.mark.slow
def test_a_number_of_sessions_is_measured(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(assets / "mediapipe"))
    path = tmp_path / "serve.json"
    args = ["serve", "--input", str(assets / "av/face_and_speech.mp4"), "--sessions", "2", "--seconds", "2"]
    args += ["--set", "speech.backend=none", "--set", "models.offline=true", "--json", str(path)]
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi bench")
    assert ended.value.code == 0
    (load,) = json.loads(path.read_text())["loads"]
    assert load["sessions"] == len(load["rates"]) == 2
    assert min(load["rates"]) > 0
    assert load["age_ms"]["n"] > 0
    assert load["pictures"] > 0
    assert load["pss_mib"] > 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert isinstance(read_report(path), ServeReport)


@pytest.mark.assets
@pytest.mark.slow
def test_a_server_that_does_not_start_is_an_error_with_its_reason(assets: Path) -> None:
    clip = assets / "av/face_and_speech.mp4"
    with pytest.raises(StageError, match="engine"):
        measure_serve(clip, [1], 1.0, 15.0, ["fusion.engine=none"], lambda *_: None)


def test_a_clip_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match="pictures"):
        measure_serve(tmp_path / "empty.mp4", [1], 1.0, 15.0, [], lambda *_: None)
