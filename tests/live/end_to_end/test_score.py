"""`emi score` and `emi_live.score` give the numbers of `emi-live --input`, for real clips."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import emi_live
from emi_live.errors import SourceError
from emi_live.scoring.clip import ClipScorer
from emi_models import EMOTIONS, MODALITIES
from tests.live.end_to_end.support import emi_live as run_emi_live
from tests.support.waiting import until

pytestmark = [pytest.mark.assets, pytest.mark.slow]

EMI = str(Path(sys.executable).with_name("emi"))
WITHOUT_WORDS = ("--offline", "--set", "speech.backend=none")


@pytest.fixture(scope="module")
def clips(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with a face, one of sound alone, a damaged one, and no clip at all."""
    folder = tmp_path_factory.mktemp("clips")
    shutil.copy(assets / "av/face_slides_out_after_2s.mp4", folder / "face.mp4")
    shutil.copy(assets / "speech/librivox_sense_0880.wav", folder / "voice.wav")
    (folder / "broken.mp4").write_bytes(b"no media")
    (folder / "notes.txt").write_text("of nothing")
    return folder


def environ(assets: Path) -> dict[str, str]:
    return {**os.environ, "EMI_MODEL_DIR": str(assets / "mediapipe")}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_has_the_numbers_of_single_runs_and_goes_on_after_kill_9(
    assets: Path, clips: Path, tmp_path: Path
) -> None:
    command = [EMI, "score", str(clips), "--out", str(tmp_path / "out"), "--workers", "1", *WITHOUT_WORDS]
    first = subprocess.Popen(
        command, env=environ(assets), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    until(lambda: (tmp_path / "out/face.csv").exists(), timeout_s=60.0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = subprocess.run(command, env=environ(assets), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "broken.mp4: " in again.stderr
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {
        *("face.csv", "face.words.csv", "voice.csv", "voice.words.csv", "summary.csv")
    }
    assert [row["file"] for row in table(tmp_path / "out/summary.csv")] == ["face.mp4", "voice.wav"]
    for name in ("face.mp4", "voice.wav"):
        alone = run_emi_live(assets, "--input", clips / name, backend="none").lines
        rows = table(tmp_path / "out" / f"{Path(name).stem}.csv")
        assert len(rows) == len(alone)
        for row, line in zip(rows, alone, strict=True):
            assert (float(row["t"]), row["session"]) == (line["t"], line["session"])
            for emotion in EMOTIONS:
                assert float(row[emotion]) == pytest.approx(line["intensities"][emotion], abs=6e-5)
            for modality in MODALITIES:
                report = line["modalities"][modality]
                assert row[f"{modality}_state"] == report["state"]
                assert row[f"{modality}_reason"] == (report.get("reason") or "")
    face = table(tmp_path / "out/face.csv")
    assert float(face[5]["mouthSmileLeft"]) > 0.3  # he smiles
    assert abs(float(face[5]["yaw_deg"])) < 30.0
    assert face[-1]["mouthSmileLeft"] == ""  # and has left the picture
    voice = table(tmp_path / "out/voice.csv")
    assert any(60.0 < float(row["f0_hz"] or 0) < 400.0 for row in voice)
    assert voice[5]["mouthSmileLeft"] == ""


def test_one_line_of_python_gives_a_table_with_words(
    assets: Path, whisper_base: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(whisper_base.parent))
    scores = emi_live.score(
        assets / "speech/LJ001-0002.wav", emi_live.load_config(None, ["models.offline=true"])
    )
    assert scores.text.lower().strip(".") == "in being comparatively modern"
    assert [word.start_ns for word in scores.words] == sorted(word.start_ns for word in scores.words)
    assert set(scores["text_state"]) <= {"live", "missing", "stale"}
    assert "live" in scores["text_state"]
    assert {len(column) for column in scores.values()} == {scores.rows}
    assert scores.rows == len(scores["joy"])


def test_models_are_loaded_once_and_forget_every_clip(assets: Path, clips: Path) -> None:
    steps: list[str] = []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        steps.append(name)
        yield

    config = emi_live.load_config(
        settings=["speech.backend=none", "models.offline=true"],
        overrides={"models": {"directory": assets / "mediapipe"}},
    )
    with ClipScorer(config, step=step) as scorer:
        first = scorer.score(clips / "face.mp4")
        with pytest.raises(SourceError):
            scorer.score(clips / "broken.mp4")
        voice = scorer.score(clips / "voice.wav")
        several = scorer.for_several(2)
        paths = [clips / name for name in ("face.mp4", "voice.wav")]
        with ThreadPoolExecutor(2) as threads:
            at_once = list(threads.map(ClipScorer.score, several, paths))
        several[1]._models = None  # as after a part has failed: it gets what is its own once more
        at_once.append(several[1].score(clips / "face.mp4"))
        for one in several:
            one.close()
        again = scorer.score(clips / "face.mp4")
    assert set(voice["vision_reason"]) == {"no source"}
    for found, other in zip((first, first, voice, first), (again, *at_once), strict=True):
        assert found.keys() == other.keys()
        for name, column in found.items():
            assert np.array_equal(column, other[name], equal_nan=column[0].__class__ is np.float64), name
    assert steps.count("opening the media") == 8  # one to see whether the checkpoint fits
    assert (steps.count("loading the face model"), steps.count("starting the network")) == (1, 1)
