"""Few clips: settings that the number decides, and TAEMI next to a ridge regression on a linear signal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models import EMOTIONS
from emi_models.checkpoint import read_header
from emi_models.data.clip import Clip, FeatureTrack
from emi_models.inputs import FusionShapes
from emi_models.training.config import TrainConfig
from emi_models.training.fit import fit
from emi_models.training.predict import predict_split
from emi_models.training.scale import FEW_CLIPS, scaled
from tests.models.training.sets import MemorySet, memory_set
from tests.models.training.small import CutOff, small

SHAPES = FusionShapes(vision_frames=6, vision_dim=24, audio_frames=8, audio_dim=32, text_dim=64)
ALPHAS = 10.0 ** np.arange(-1, 5, 0.5)
Floats = NDArray[np.float64]


def config(settings: Mapping[str, Any] | None = None) -> TrainConfig:
    return TrainConfig.model_validate(settings or {})


def test_fewer_clips_decay_more_and_train_as_many_steps() -> None:
    few, changed = scaled("taemi", config(), 1000)
    assert (few.training.weight_decay, few.training.max_epochs) == (3.0, 50)
    assert few.network == {"d_model": 256, "mlp_hidden": 256, "dropout": 0.3}
    assert changed["training.weight_decay"] == 3.0
    fewer, more = (scaled("taemi", config(), clips)[0].training for clips in (320, 3000))
    assert (fewer.weight_decay, fewer.max_epochs) == (3.0, 150)
    assert (more.weight_decay, more.max_epochs) == (1.0, 50)


def test_what_is_asked_for_is_kept() -> None:
    asked = config({"training": {"weight_decay": 0.1, "max_epochs": 7}, "network": {"d_model": 64}})
    few, changed = scaled("taemi", asked, 100)
    assert (few.training.weight_decay, few.training.max_epochs, few.network["d_model"]) == (0.1, 7, 64)
    assert few.network["dropout"] == 0.3
    assert not {"training.weight_decay", "training.max_epochs", "network.d_model"} & set(changed)


@pytest.mark.parametrize(
    ("system", "clips", "settings"),
    [
        ("taemi", FEW_CLIPS, {}),
        ("two_stage", 100, {}),
        ("taemi", 100, {"training": {"recipe": "paper"}}),
        ("taemi", 100, {"encoders": {"train": ["text"]}}),
    ],
)
def test_all_else_is_as_in_the_papers(system: str, clips: int, settings: dict[str, Any]) -> None:
    asked = config(settings)
    assert scaled(system, asked, clips) == (asked, {})


def test_what_the_number_of_clips_decides_is_said_and_written_down(tmp_path: Path) -> None:
    told = CutOff(99, OSError())
    result = fit(
        "taemi", memory_set(), tmp_path, small("taemi", max_epochs=1, recipe="scaled"), console=told.console()
    )
    assert "24 clips are few: network.dropout=0.3 training.learning_rate=0.001" in told.getvalue()
    header = read_header(result.checkpoint)
    assert header.config["dropout"] == 0.3
    assert "training.weight_decay=3" in header.notes["scaled"]


def linear_clips(count: int, seed: int, prefix: str) -> list[Clip]:
    """Clips of decision 0030: ratings are linear in the words and the means of voice and face, with noise.

    The limits cut some ratings off at 0, as people's are.
    """
    draw, maps = np.random.default_rng(seed), np.random.default_rng(99)
    text = draw.normal(size=(count, 1, SHAPES.text_dim))
    audio, vision = (
        0.7 * draw.normal(size=(count, 1, width)) + 0.7 * draw.normal(size=(count, frames, width))
        for frames, width in (
            (SHAPES.audio_frames, SHAPES.audio_dim),
            (SHAPES.vision_frames, SHAPES.vision_dim),
        )
    )
    signal = sum(
        share * frames.mean(axis=1) @ maps.normal(size=(frames.shape[2], 6))
        for share, frames in ((0.125, text), (0.12, audio), (0.08, vision))
    )
    noise = 1.1 * draw.normal(size=(count, 6))
    ratings = np.clip(0.15 + 0.12 * (signal / np.std(signal, axis=0) + noise), 0, 1)
    stamps = np.arange(SHAPES.audio_frames) * 100_000_000

    def track(frames: Floats) -> FeatureTrack:
        return FeatureTrack(stamps[: len(frames)], frames.astype(np.float32))

    return [
        Clip(
            f"{prefix}{i}",
            track(vision[i]),
            track(audio[i]),
            track(text[i]),
            1_000_000_000,
            ratings[i].astype(np.float32),
        )
        for i in range(count)
    ]


def ridge(learn: list[Clip], score: list[Clip]) -> Floats:
    """Correlations (6,) of a ridge regression on the means; its strength by five folds of `learn`."""
    x, y = features(learn), np.array([clip.targets for clip in learn], np.float64)
    folds = np.arange(len(x)) % 5
    found = []
    for alpha in ALPHAS:
        held = np.zeros_like(y)
        for fold in range(5):
            held[folds == fold] = fitted(x[folds != fold], y[folds != fold], alpha, x[folds == fold])
        found.append(correlations(held, y).mean())
    best = float(ALPHAS[int(np.argmax(found))])
    truth = np.array([clip.targets for clip in score], np.float64)
    return correlations(fitted(x, y, best, features(score)), truth)


def features(clips: list[Clip]) -> Floats:
    return np.array(
        [
            np.concatenate([getattr(c, m).values.mean(axis=0) for m in ("vision", "audio", "text")])
            for c in clips
        ],
        np.float64,
    )


def fitted(x: Floats, y: Floats, alpha: float, new: Floats) -> Floats:
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    gram = (x - centre).T @ (x - centre) + alpha * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - centre).T @ (y - mean))
    return np.asarray((new - centre) @ weights + mean)


def correlations(predicted: Floats, truth: Floats) -> Floats:
    return np.array([np.corrcoef(predicted[:, e], truth[:, e])[0, 1] for e in range(len(EMOTIONS))])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_1200_clips_with_a_linear_signal_taemi_does_not_lose_to_ridge(tmp_path: Path) -> None:
    """Scored on 1,000 other clips, so that no choice of an epoch helps; 12 epochs, not 50, for time."""
    learn, valid, test = (
        linear_clips(count, seed, prefix)
        for seed, (count, prefix) in enumerate(((960, "l"), (240, "v"), (1000, "t")), start=1)
    )
    clips = MemorySet(splits={"train": learn, "valid": valid, "test": test}, shapes=SHAPES)
    result = fit("taemi", clips, tmp_path, config({"training": {"threads": 1, "max_epochs": 12}}))
    found = predict_split([result.checkpoint], clips, "test").scores
    assert found is not None
    assert found.mean_pearson >= ridge(learn, test).mean()
