"""The road of docs/training.md, on the first seconds of six clips: extract, train, evaluate, run live.

The ratings are made up: what is shown is that the parts fit, not that anything is learned.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from emi_live.cli.evaluate import eval_app
from emi_live.cli.train import train_app
from emi_models import EMOTIONS
from emi_models.checkpoint import read_header
from tests.live.end_to_end.support import emi_live, environment, first_seconds

CLIPS = (
    "av/face_and_speech.mp4",
    "face/intel_please.mkv",
    "face/intel_sorry.mkv",
    "face/pyfeat_face_noface.mov",
    "face/pyfeat_no_face.mp4",
    "face/pyfeat_single_face.mp4",
)


def extract(assets: Path, *args: str | Path) -> None:
    """Run `emi extract` as a user does: it starts processes of its own."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("emi")), "extract", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment(assets),
    )
    assert done.returncode == 0, done.stderr


def emi(app: typer.Typer, *args: str | Path) -> str:
    """What a command prints; run in this process, which has loaded PyTorch already."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_six_clips_to_a_checkpoint_that_runs_live(assets: Path, tmp_path: Path) -> None:
    videos, features, run = tmp_path / "clips", tmp_path / "features", tmp_path / "run"
    videos.mkdir()
    lines = ["id,split," + ",".join(EMOTIONS)]
    for number, name in enumerate(CLIPS):
        clip = first_seconds(assets / name, 2.0, videos)
        ratings = ",".join(f"{(number + k) % 6 / 6:.2f}" for k in range(len(EMOTIONS)))
        lines.append(f"{clip.stem},{'valid' if number % 3 == 0 else 'train'},{ratings}")
    ratings_csv = tmp_path / "ratings.csv"
    ratings_csv.write_text("\n".join(lines) + "\n", encoding="utf-8")

    extract(assets, "--videos", videos, "--labels", ratings_csv, "--out", features, "--offline")
    settings = ("--set", "training.max_epochs=2", "--set", "network.d_model=16")
    emi(train_app, "--system", "taemi", "--data", features, "--out", run, *settings)
    checkpoint = run / "checkpoint.safetensors"
    header = read_header(checkpoint)
    assert header.system == "taemi"
    assert header.modalities == ("vision", "audio", "text")
    assert (run / "curves.png").stat().st_size > 0

    scores = json.loads(emi(eval_app, "--checkpoint", checkpoint, "--data", features, "--json", "-"))
    assert scores["n"] == 2
    assert len(scores["prefixes"]) == 5

    live = emi_live(
        assets, "--input", videos / "2s-face_and_speech.mp4", "--checkpoint", checkpoint, "--duration", "2"
    )
    assert live.exit_code == 0, live.stderr
    assert len(live.lines) == 10
    assert all(live.at(2.0)["modalities"][name]["used"] for name in ("vision", "audio"))
    assert "taemi checkpoint checkpoint.safetensors" in live.stderr
