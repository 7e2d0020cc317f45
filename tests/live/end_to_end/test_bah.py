"""BAH by the commands of docs/bah.md, on a made-up folder: convert, train, eval, predict, live.

The words of the videos say whether ambivalence shows, so a network that sees them can learn it.
"""

from __future__ import annotations

import csv
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from emi_live.bundle import find_bundle
from emi_live.cli.evaluate import eval_app, predict_app
from emi_live.cli.paper import app as paper_app
from emi_live.cli.prepare import convert_app
from emi_live.cli.train import train_app
from emi_models.checkpoint import read_header
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.data.dataset import ClipWriter, DatasetInfo
from emi_models.inputs import COMPACT_SHAPES
from tests.live.end_to_end.support import PROGRAM, first_seconds
from tests.models.data.bah_folder import write_bah

SECONDS = 4.0


def features(folder: Path, videos: list[str]) -> Path:
    """As `emi extract --seconds 0 --without text` leaves them: ids with the folders, no words."""
    bundle = find_bundle("compact")
    encoders = {name: bundle.encoder_ids[name] for name in ("vision", "audio")}
    shapes = replace(COMPACT_SHAPES, text_dim=1)
    info = DatasetInfo(bundle="compact", encoders=encoders, shapes=shapes, description="", licence="")  # type: ignore[arg-type]  # by modality
    writer, random = ClipWriter(folder, info), np.random.default_rng(0)

    def track(count: int, dim: int) -> FeatureTrack:
        t_ns = (np.arange(1, count + 1) * (SECONDS * 1e9 / count)).astype(np.int64)
        return FeatureTrack(t_ns, random.normal(size=(count, dim)).astype(np.float32))

    for name in videos:
        clip_id = f"{name.partition('_')[0]}__Visite_1__{name}"
        writer.write(
            Clip(
                clip_id,
                track(8, 58),
                track(10, COMPACT_SHAPES.audio_dim),
                FeatureTrack.empty(1),
                round(SECONDS * 1e9),
            )
        )
    writer.write_manifest()
    return folder


def emi(app: typer.Typer, *args: str | Path) -> str:
    """What a command prints; run in this process, which has loaded PyTorch already."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_bahs_folder_to_the_json_line(
    assets: Path, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMI_MODEL_DIR", str(minilm.parent))
    data, out = tmp_path / "BAH", tmp_path / "run"
    names = write_bah(data, {"train": 6, "val": 4, "test": 2}, SECONDS)
    extracted = features(tmp_path / "bah-features", names)

    convert = (data, "--features", extracted, "--window", "causal", "--json")
    found = json.loads(emi(convert_app, *convert))
    assert found["videos"] == {"train": 6, "valid": 4, "test": 2}
    assert found["videos_with_word_times"] == found["videos_with_features"] == 12
    assert (found["labelled_frames"], found["frames_with_ambivalence"]) == (960, 240)

    small = {
        "training.max_epochs": 2,
        "training.learning_rate": 0.01,
        "training.batch_size": 8,
        "network.modalities": '["vision","text"]',
        "network.vision_hidden": 8,
        "network.fusion_hidden": 32,
    }
    settings = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    train = ("--task", "bah", "--data", data, "--window", "causal", "--every", "6", "--out", out)
    emi(train_app, *train, *settings)
    checkpoint = out / "checkpoint.safetensors"
    header = read_header(checkpoint)
    assert (header.task, header.notes["window"]) == ("bah", "causal")
    assert header.spans_s == {"vision": 20.0, "audio": 12.0, "text": 20.0}
    assert header.modalities == ("vision", "text")

    given = ("--checkpoint", checkpoint, "--data", data)
    scores = json.loads(emi(eval_app, *given, "--every", "12", "--json", "-"))
    assert scores["n"] == 32
    assert scores["whole"].keys() == {"n", "weighted_f1", "macro_f1", "average_precision"}
    assert scores["whole"]["average_precision"] > 0.6  # a quarter of the frames is positive
    assert scores["videos"]["n"] == 4

    table = ("semantic_matters", "--table", "6", "--data", data, "--rows", "35 seconds", "--json")
    (row,) = json.loads(emi(paper_app, *table, "--out", tmp_path / "paper", *settings))
    assert row["row"]["name"] == "35 seconds"
    assert 0 <= row["valid"] <= 1
    assert not row["why"]

    predictions = tmp_path / "frames.csv"
    emi(predict_app, *given, "--split", "test", "--out", predictions)
    rows = list(csv.DictReader(predictions.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * 96
    assert {row["video"] for row in rows} == set(names[10:])
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    clip = first_seconds(assets / "av/face_and_speech.mp4", 4.4, tmp_path)
    live = [PROGRAM, str(clip), "--checkpoint", str(checkpoint), "--duration", "4", "--no-ui", "--json", "-"]
    done = subprocess.run(
        [*live, "--offline", "--set", "speech.backend=pocketsphinx"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 20
    assert all(0 < line["ambivalence"] < 1 and line["intensities"] == {} for line in lines)
    assert len({line["ambivalence"] for line in lines}) > 3
    assert any(line["modalities"]["text"]["used"] for line in lines)
