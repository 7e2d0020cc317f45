"""Labels of one's own, by the commands: train on two, partly rated; score; run live; read the JSON line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from emi_live.bundle import find_bundle
from emi_live.cli.evaluate import eval_app
from emi_live.cli.train import train_app
from emi_live.errors import ConfigurationError
from emi_models.checkpoint import read_header
from emi_models.inputs import COMPACT_SHAPES, FusionShapes
from emi_models.targets import Target
from tests.live.cli.clip_folder import write_folder
from tests.live.end_to_end.support import emi_live, first_seconds
from tests.models.training.sets import MemorySet, random_clips

# As long as windows of the compact bundle; clips with fewer frames are read faster.
SHAPES: FusionShapes = replace(COMPACT_SHAPES, vision_frames=20, audio_frames=30)


def features(folder: Path) -> Path:
    """A folder as `emi extract` leaves it without ratings, with widths and encoders of the compact bundle."""
    clips = [
        replace(clip, targets=None) for clip in random_clips(24, shapes=SHAPES, longest_s=3.0, prefix="clip_")
    ]
    return write_folder(
        folder,
        MemorySet(
            splits={"": clips},
            shapes=COMPACT_SHAPES,
            encoders=dict(find_bundle("compact").encoder_ids),  # type: ignore[arg-type]  # by modality
        ),
    )


def own_labels(path: Path) -> Path:
    """Arousal from -1 to 1 and a valence from 0 to 100; many clips have one of them, two have neither."""
    random = np.random.default_rng(0)
    lines = ["id,split,valence,who,arousal"]
    for number in range(24):
        arousal, valence = f"{random.uniform(-1, 1):.3f}", f"{random.uniform(0, 100):.1f}"
        arousal, valence = ("" if number % 4 == 1 else arousal), ("" if number % 6 == 2 else valence)
        if number in (6, 7):
            arousal = valence = ""
        lines.append(
            f"clip_{number:03},{'valid' if number % 3 == 0 else 'train'},{valence},p{number % 5},{arousal}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def emi(app: typer.Typer, *args: str | Path) -> Result:
    """A command, run in this process, which has loaded PyTorch already."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_targets_of_ones_own_from_training_to_the_json_line(assets: Path, tmp_path: Path) -> None:
    data, labels, run = features(tmp_path / "features"), own_labels(tmp_path / "own.csv"), tmp_path / "run"
    asked = ("--targets", "arousal:-1..1,valence:0..100", "--labels", labels)
    settings = (
        "--set",
        "training.max_epochs=2",
        "--set",
        "network.d_model=16",
        "--set",
        "training.batch_size=8",
    )
    done = emi(train_app, "--system", "taemi", "--data", data, "--out", run, *asked, *settings)
    assert done.exit_code == 0, done.output
    assert "arousal" in done.stderr
    checkpoint = run / "checkpoint.safetensors"
    header = read_header(checkpoint)
    assert header.targets == (Target("arousal", -1, 1), Target("valence", 0, 100))
    assert set(header.scores) == {"valid_pearson_mean", "valid_pearson_arousal", "valid_pearson_valence"}

    figure = tmp_path / "seconds.png"
    given = ("--checkpoint", checkpoint, "--data", data)
    done = emi(eval_app, *given, "--labels", labels, "--json", "-", "--figure", figure)
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert scores["n"] == 7
    assert scores["whole"]["rated"] == {"arousal": 5, "valence": 7}
    assert set(scores["whole"]["pearson"]) == {"mean", "arousal", "valence"}
    assert scores["whole"]["mse"]["valence"] > 10  # in its own units
    assert figure.stat().st_size > 0
    refused = emi(eval_app, *given)
    assert isinstance(refused.exception, ConfigurationError)
    assert "--labels" in str(refused.exception)

    clip = first_seconds(assets / "av/face_and_speech.mp4", 2.4, tmp_path)
    live = emi_live(assets, "--input", clip, "--checkpoint", checkpoint, "--duration", "2")
    assert live.exit_code == 0, live.stderr
    assert len(live.lines) == 10
    for line in live.lines:
        assert list(line["intensities"]) == ["arousal", "valence"]
        assert line["ranges"] == {"arousal": [-1.0, 1.0], "valence": [0.0, 100.0]}
        assert -1 <= line["intensities"]["arousal"] <= 1
        assert 0 <= line["intensities"]["valence"] <= 100
    assert any(line["modalities"]["vision"]["used"] for line in live.lines)
