"""Each system can learn 64 clips by heart: the least that a training must be able to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emi_models.checkpoint import load_checkpoint
from emi_models.inputs import FusionShapes
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate
from emi_models.training.fit import fit
from tests.models.training.sets import MemorySet, random_clips

# Features say nothing of the ratings, so that there is nothing to understand.
SHAPES = FusionShapes(vision_frames=6, vision_dim=16, audio_frames=9, audio_dim=16, text_dim=32)
CLIPS = random_clips(64, shapes=SHAPES, told=False)
BY_HEART = MemorySet(splits={"train": CLIPS, "valid": CLIPS}, shapes=SHAPES)
# Epochs, learning rate, and a network without dropout that is wide enough for it.
SETTINGS: dict[str, tuple[int, float, dict[str, Any]]] = {
    "taemi": (25, 3e-3, {"d_model": 32, "mlp_hidden": 128, "dropout": 0.0, "modality_dropout": 0.0}),
    "two_stage": (15, 5e-3, {"hidden": 64, "fusion_hidden": 128, "dropout": 0.0, "modality_dropout": 0.0}),
    "dual_stage": (
        *(35, 5e-3),
        {"shared": 32, "d_model": 32, "layers": 1, "tcn_layers": 2, "segments": 2, "dropout": 0.0},
    ),
    "semantic_matters": (25, 1e-2, {"audio_hidden": 64, "vision_hidden": 32, "fusion_hidden": 128}),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SETTINGS)
def test_a_system_learns_64_clips_by_heart(system: str, tmp_path: Path) -> None:
    epochs, rate, network = SETTINGS[system]
    training: dict[str, Any] = {
        "max_epochs": epochs,
        "patience": epochs,
        "learning_rate": rate,
        "batch_size": 16,
        "recipe": "paper",
    }
    if system == "dual_stage":
        training["stages"] = {"align": {"max_epochs": 2}}
    config = TrainConfig.model_validate({"training": training, "network": network})
    result = fit(system, BY_HEART, tmp_path, config)
    found = evaluate(load_checkpoint(result.checkpoint).network, BY_HEART, "train", prefixes=())
    assert found.n == 64
    assert found.whole.mean_pearson >= 0.95
    assert min(found.whole.pearson) >= 0.9
