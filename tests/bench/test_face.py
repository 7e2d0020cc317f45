from __future__ import annotations

import json
from pathlib import Path

import pytest

from emi_bench.cli import app
from emi_bench.face import measure_faces
from emi_bench.live_report import FaceReport
from emi_bench.report import read_report
from emi_live.cli.errors import run_app
from emi_live.errors import SourceError

CLIP = "face/pyfeat_single_face.mp4"


@pytest.mark.assets
def test_both_backends_are_measured_and_compared(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(assets / "mediapipe"))
    path = tmp_path / "face.json"
    args = [
        "face",
        "--input",
        str(assets / CLIP),
        "--max-faces",
        "2",
        "--pictures",
        "20",
        "--json",
        str(path),
    ]
    with pytest.raises(SystemExit) as ended:
        run_app(app, args, "emi bench")
    assert ended.value.code == 0
    found = json.loads(path.read_text())
    assert [(cost["backend"], cost["max_faces"], cost["n"]) for cost in found["costs"]] == [
        ("litert", 2, 10),
        ("mediapipe", 2, 10),
    ]
    assert all(cost["with_face"] == 10 and cost["cpu_mean_ms"] > 0 for cost in found["costs"])
    (difference,) = found["differences"]
    assert (difference["n"], difference["other_count"]) == (20, 0)
    assert 0 < difference["mean"] <= difference["most"] < 0.01
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert isinstance(read_report(path), FaceReport)


@pytest.mark.assets
def test_one_backend_is_compared_with_nothing(assets: Path) -> None:
    model = assets / "mediapipe" / "face_landmarker.task"
    report = measure_faces(assets / CLIP, model, ["litert"], [1, 2], 20, lambda *_: None)
    assert [cost.max_faces for cost in report.costs] == [1, 2]
    assert report.differences == []


@pytest.mark.assets
@pytest.mark.parametrize(("name", "pictures"), [("speech/jfk.flac", 20), (CLIP, 5), ("MANIFEST.tsv", 20)])
def test_what_has_no_or_too_few_pictures_is_refused(assets: Path, name: str, pictures: int) -> None:
    with pytest.raises(SourceError, match="pictures"):
        measure_faces(assets / name, assets / "none", ["litert"], [1], pictures, lambda *_: None)
