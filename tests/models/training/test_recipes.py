"""The recipes say what the papers say; settings change that, and only that."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from emi_models import Modality
from emi_models.data.batches import ClipWindows, collate
from emi_models.errors import TrainingError
from emi_models.networks import SYSTEMS
from emi_models.networks.dual_stage import DualStage, DualStageConfig
from emi_models.networks.semantic_matters import SemanticMattersConfig
from emi_models.networks.taemi import TaemiConfig
from emi_models.networks.two_stage import TwoStageConfig
from emi_models.training.config import TrainConfig, TrainingSettings
from emi_models.training.fit import network_for
from emi_models.training.papers import RECIPES, recipe_of
from emi_models.training.recipe import Clipping, Cosine, Plateau, Restarts
from tests.models.training.sets import SHAPES, memory_set


def test_every_system_has_a_recipe() -> None:
    assert RECIPES.keys() == SYSTEMS.keys()


def test_an_unknown_system_lists_those_that_there_are() -> None:
    with pytest.raises(TrainingError, match="temi"):
        recipe_of("temi")


def test_taemi_is_trained_as_in_its_paper() -> None:
    (stage,) = recipe_of("taemi").stages(TaemiConfig(shapes=SHAPES))
    assert (stage.learning_rate, stage.weight_decay, stage.batch_size) == (1e-4, 0.01, 32)
    assert (stage.epochs, stage.patience, stage.schedule) == (50, 5, Cosine(warm_up=1))
    assert (stage.clipping, stage.average, stage.margin) == (Clipping(100.0, "value"), None, 0.0)


def test_the_two_stage_network_is_trained_as_its_code_says() -> None:
    stages = recipe_of("two_stage").stages(TwoStageConfig(shapes=SHAPES, motion_dim=2))
    assert [(stage.name, stage.epochs) for stage in stages] == [
        *(("text", 50), ("audio", 50), ("vision", 50), ("motion", 100), ("fusion", 50))
    ]
    for stage in stages:
        assert (stage.learning_rate, stage.weight_decay, stage.batch_size) == (2e-4, 1e-2, 16)
        assert (stage.patience, stage.margin, stage.schedule) == (10, 1e-4, Plateau(0.5, 3))
        assert stage.clipping == Clipping(1.0, "norm")


def test_the_dual_network_is_aligned_then_fused() -> None:
    align, fusion = recipe_of("dual_stage").stages(DualStageConfig(shapes=SHAPES))
    assert (align.name, align.epochs, align.learning_rate) == ("align", 50, 1e-5)
    assert align.schedule == Restarts(cycle=10, floor=1e-7 / 1e-5)
    assert (fusion.name, fusion.average) == ("fusion", 0.999)
    wordless = DualStageConfig(shapes=SHAPES, modalities=("vision", "audio"))
    assert [stage.name for stage in recipe_of("dual_stage").stages(wordless)] == ["fusion"]


@pytest.mark.parametrize("modalities", [("vision",), ("audio",), ("vision", "audio")])
def test_words_may_take_part_in_stage_one_alone(modalities: tuple[Modality, ...]) -> None:
    config = DualStageConfig(shapes=SHAPES, modalities=modalities, align_text=True)
    align, fusion = recipe_of("dual_stage").stages(config)
    assert (align.name, fusion.name) == ("align", "fusion")
    torch.manual_seed(0)
    network = DualStage(config)
    windows = ClipWindows(memory_set(missing=0.0), "train")
    window, targets = collate([windows[i] for i in range(len(windows))])
    outcome = align.objective(network)(window, targets)
    assert outcome.loss > 0
    outcome.loss.backward()
    assert network.project["text"].weight.grad is not None
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(window), network(window.without("text")))
    with pytest.raises(ValueError, match="align_text"):
        DualStageConfig(shapes=replace(SHAPES, text_dim=1), modalities=modalities, align_text=True)


def test_semantic_matters_and_its_second_task() -> None:
    (emi,) = recipe_of("semantic_matters").stages(SemanticMattersConfig(shapes=SHAPES))
    assert (emi.learning_rate, emi.epochs, emi.batch_size, emi.schedule) == (1e-4, 30, 32, Cosine())
    (bah,) = recipe_of("semantic_matters").stages(SemanticMattersConfig(shapes=SHAPES, task="bah"))
    assert (bah.learning_rate, bah.epochs) == (7.5e-6, 10)


def test_settings_for_all_stages_then_for_one() -> None:
    settings = TrainingSettings.model_validate(
        {"max_epochs": 3, "batch_size": 8, "stages": {"align": {"max_epochs": 7, "learning_rate": 1e-3}}}
    )
    align, fusion = recipe_of("dual_stage").adjusted_stages(DualStageConfig(shapes=SHAPES), settings)
    assert (align.epochs, align.batch_size, align.learning_rate) == (7, 8, 1e-3)
    assert (fusion.epochs, fusion.batch_size, fusion.learning_rate) == (3, 8, 1e-4)


def test_settings_of_a_stage_that_there_is_not() -> None:
    settings = TrainingSettings.model_validate({"stages": {"motion": {"max_epochs": 1}}})
    with pytest.raises(TrainingError, match="motion"):
        recipe_of("dual_stage").adjusted_stages(DualStageConfig(shapes=SHAPES), settings)


@pytest.mark.parametrize(
    "values",
    [
        {"training": {"max_epoch": 1}},
        {"training": {"max_epochs": 0}},
        {"training": {"batch_size": 1}},
        {"training": {"precision": "fp8"}},
        {"data": {"held_out": 1.0}},
        {"data": {"spans_s": {"smell": 2.0}}},
        {"data": {"spans_s": {"vision": 13.0}}},
        {"optimizer": "sgd"},
    ],
)
def test_a_setting_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(values)


def test_our_own_faces_are_what_the_two_stage_paper_calls_motion() -> None:
    clips = memory_set()
    ours = replace(clips, encoders={**clips.encoders, "vision": "mediapipe/face_landmarker@float16-1+pose"})
    recipe = recipe_of("two_stage")
    assert network_for("two_stage", recipe, ours, {}).config.branches == ("text", "audio", "motion")  # type: ignore[attr-defined]
    assert network_for("two_stage", recipe, clips, {}).config.branches == ("text", "audio", "vision")  # type: ignore[attr-defined]


def test_a_network_is_built_for_the_modalities_that_clips_have() -> None:
    clips = memory_set()
    deaf = replace(clips, encoders={m: name for m, name in clips.encoders.items() if m != "audio"})
    assert network_for("taemi", recipe_of("taemi"), deaf, {}).config.modalities == ("vision", "text")
    fewer = network_for("taemi", recipe_of("taemi"), clips, {"modalities": ["text", "audio"]})
    assert fewer.config.modalities == ("audio", "text")
    with pytest.raises(TrainingError, match="vision, text"):
        network_for("taemi", recipe_of("taemi"), deaf, {"modalities": ["audio"]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_modl": 8}, "d_modl"),
        ({"shapes": {}}, "shapes"),
        ({"modalities": "text"}, "modalities"),
    ],
)
def test_a_wrong_network_setting_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        network_for("taemi", recipe_of("taemi"), memory_set(), settings)
    assert "\n" not in str(caught.value)
