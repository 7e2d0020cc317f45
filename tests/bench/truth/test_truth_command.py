"""Both commands as a user runs them: sounds and sentences in, report and calibrated checkpoint out."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
import pytest

from emi_bench.calibration_report import CalibrationReport
from emi_bench.cli import app
from emi_bench.report import make_report, read_report
from emi_bench.truth_report import TruthReport
from emi_live.cli.errors import run_app
from emi_models.checkpoint import packaged_checkpoint, read_header

RATE_HZ = 16_000
SPEAKERS = ("a", "b", "c", "d")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, list(arguments), "emi bench")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def write_tone(path: Path, hz: float, level: float) -> None:
    t = np.arange(RATE_HZ // 2) / RATE_HZ
    samples = (32_000 * level * np.sign(np.sin(2 * np.pi * hz * t))).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """24 sounds of four speakers, rated by how loud they are; a file that is none, and one that is absent."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(24):
        level = float(rng.uniform(0.02, 0.5))
        write_tone(tmp_path / f"{index}.wav", 110 + 5 * index, level)
        rows.append([f"{index}.wav", SPEAKERS[index % 4], "f" if index % 2 else "m", f"{np.log(level):.3f}"])
    (tmp_path / "broken.wav").write_text("this is no sound")
    rows += [["broken.wav", "a", "m", "0"], ["absent.wav", "b", "f", "0"]]
    path = tmp_path / "ratings.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "speaker", "sex", "arousal"], *rows])
    return path


@pytest.mark.slow
def test_voices_are_scored_next_to_loudness_and_broken_files_are_listed(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(tmp_path / "no models"))
    out, cache = tmp_path / "truth.json", tmp_path / "cache"
    arguments = (
        "truth",
        str(voices),
        "--cache",
        str(cache),
        "--set",
        "models.offline=true",
        "--json",
        str(out),
    )
    assert run(*arguments) == 0
    report = read_report(out)
    assert isinstance(report, TruthReport)
    assert {problem.file for problem in report.problems} == {"broken.wav", "absent.wav"}
    by = {row.by: row.agreement for row in report.rows}
    assert set(by) == {"checkpoint", "loudness", "ridge"}
    loudness = by["loudness"]
    assert loudness.r is not None
    assert loudness.r > 0.95
    assert (loudness.n, loudness.clusters) == (24, 4)
    assert {(row.column, row.value, row.n) for row in report.groups} == {("sex", "f", 12), ("sex", "m", 12)}
    shown = capsys.readouterr().out
    assert "broken.wav" in shown
    assert max(map(len, shown.splitlines())) <= 80
    make_report([out], tmp_path / "page")
    assert (tmp_path / "page.png").stat().st_size > 10_000

    # The second run takes the features from the cache: the sounds may be gone but for their size and time.
    kept = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) == 48  # features, and when the voice counts
    assert run(*arguments, "--speakers", "a,b") == 0
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == kept
    second = read_report(out)
    assert isinstance(second, TruthReport)
    assert {row.agreement.n for row in second.rows} == {12}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("none.csv",), "none.csv"),
        (("RATINGS", "--speakers", "z"), "z"),
        (("RATINGS", "--pair", "arousal=anger"), "anger"),
        (("RATINGS", "--checkpoint", "none.safetensors"), "none.safetensors"),
        (("RATINGS", "--json", "none/truth.json"), "--json"),
    ],
)
def test_bad_use_is_one_line(
    voices: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    word: str,
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(tmp_path / "no models"))
    given = [str(voices) if argument == "RATINGS" else argument for argument in arguments]
    assert run("truth", *given, "--set", "models.offline=true") == 2
    said = capsys.readouterr().err
    assert word in said
    assert "Traceback" not in said


def test_a_checkpoint_gets_intervals_and_keeps_its_weights(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(minilm.parent))
    path = tmp_path / "words.csv"
    texts = [("i am so happy about this", 0.9), ("the train leaves at ten", 0.0), ("what a joy", 0.7)]
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "joy"])
        for index in range(240):
            text, joy = texts[index % 3]
            table.writerow([f"{text} {index}", f"{np.clip(joy + rng.normal(0, 0.1), 0, 1):.3f}"])
    source, target = packaged_checkpoint("compact"), tmp_path / "calibrated.safetensors"
    out = tmp_path / "calibrate.json"
    assert (
        run("calibrate", str(path), "--checkpoint", str(source), "--out", str(target), "--json", str(out))
        == 0
    )
    report = read_report(out)
    assert isinstance(report, CalibrationReport)
    (row,) = report.rows
    assert (row.modality, row.emotion, row.calibrated, row.tested) == ("text", "joy", 120, 120)
    assert row.coverage == pytest.approx(0.9, abs=0.07)
    found = read_header(target).intervals
    assert found is not None
    assert set(found.tables) == {"none", "text"}
    before, after = source.read_bytes(), target.read_bytes()
    assert (
        before[8 + int.from_bytes(before[:8], "little") :] == after[8 + int.from_bytes(after[:8], "little") :]
    )
