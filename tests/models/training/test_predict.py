"""Predictions: a line for each clip, the mean of several networks, clipped; trainings without validation."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_models import EMOTIONS
from emi_models.checkpoint import load_checkpoint, read_header, save_checkpoint
from emi_models.data.clip import OFFICIAL_HEADER, FeatureTrack
from emi_models.errors import TrainingError
from emi_models.targets import EMI_TARGETS, Target
from emi_models.training.evaluate import evaluate_checkpoint, pearson
from emi_models.training.fit import fit
from emi_models.training.predict import predict_split
from tests.models.training.sets import SHAPES, MemorySet, Named, memory_set, random_clips, unrated
from tests.models.training.small import CutOff, small

BARE = replace(
    random_clips(1, prefix="bare")[0],
    vision=FeatureTrack.empty(SHAPES.vision_dim),
    audio=FeatureTrack.empty(SHAPES.audio_dim),
    text=FeatureTrack.empty(SHAPES.text_dim),
)
CLIPS = memory_set(24, 12)
TEST = [unrated(clip) for clip in random_clips(5, seed=9, prefix="test")] + [unrated(BARE)]
WITH_TEST = MemorySet(splits={**CLIPS.splits, "test": TEST})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    runs = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
    systems = ("taemi", "two_stage")
    return [
        fit(system, CLIPS, run, small(system, max_epochs=1, threads=1)).checkpoint
        for system, run in zip(systems, runs, strict=True)
    ]


def test_the_file_has_the_official_header_and_a_line_for_each_clip(two: list[Path]) -> None:
    found = predict_split(two[:1], WITH_TEST, "test")
    rows = list(csv.reader(io.StringIO(found.csv())))
    assert tuple(rows[0]) == OFFICIAL_HEADER
    assert [row[0] for row in rows[1:]] == [clip.id for clip in TEST]
    assert found.values.shape == (len(TEST), len(EMOTIONS))
    assert np.allclose([[float(cell) for cell in row[1:]] for row in rows[1:]], found.values, atol=1e-6)
    assert found.absent == {"vision": 1, "audio": 1, "text": 1}
    assert found.scores is None


def test_several_networks_are_averaged_before_values_are_clipped(two: list[Path], tmp_path: Path) -> None:
    high = tmp_path / "high.safetensors"
    loaded = load_checkpoint(two[0])
    with torch.no_grad():
        loaded.network.get_parameter("head.3.bias").copy_(torch.tensor([9.0, -9.0, 0.3, 0.3, 0.3, 0.3]))
    save_checkpoint(high, loaded.network, loaded.header)
    values = predict_split([high], WITH_TEST, "test").values
    assert values[:, 0].tolist() == [1.0] * len(TEST)
    assert values[:, 1].tolist() == [0.0] * len(TEST)
    alone = [predict_split([path], WITH_TEST, "test").values for path in two]
    inside = np.all([(each > 0) & (each < 1) for each in alone], axis=0)
    assert inside.any()
    both = predict_split(two, WITH_TEST, "test").values
    assert np.allclose(both[inside], np.mean(alone, axis=0)[inside], atol=1e-6)


def test_labels_of_ones_own_are_written_by_name_in_their_own_units(tmp_path: Path) -> None:
    clips = Named(splits={**CLIPS.splits, "test": TEST}, rated=(*EMI_TARGETS[:5], Target("worth", 0, 100)))
    result = fit("taemi", clips, tmp_path, small("taemi", max_epochs=1))
    loaded = load_checkpoint(result.checkpoint)
    with torch.no_grad():
        loaded.network.get_parameter("head.3.weight").zero_()
        loaded.network.get_parameter("head.3.bias").fill_(0.25)
    save_checkpoint(result.checkpoint, loaded.network, loaded.header)
    found = predict_split([result.checkpoint], clips, "valid")
    rows = list(csv.reader(io.StringIO(found.csv())))
    assert rows[0] == ["id", *EMOTIONS[:5], "worth"]
    assert {tuple(row[-2:]) for row in rows[1:]} == {("0.250000", "25.000000")}
    assert found.scores is not None
    assert found.scores.names[-1] == "worth"
    with pytest.raises(TrainingError, match="worth"):
        predict_split([result.checkpoint], CLIPS, "valid")


def test_a_prediction_depends_on_its_own_clip_alone(two: list[Path]) -> None:
    whole = predict_split(two, WITH_TEST, "test").values
    assert np.allclose(whole, predict_split(two, WITH_TEST, "test", batch_size=1).values, atol=1e-6)


def test_a_rated_split_is_scored(two: list[Path]) -> None:
    found = predict_split(two[:1], CLIPS, "valid")
    assert found.scores is not None
    rho = pearson(torch.from_numpy(found.values), torch.from_numpy(CLIPS.targets("valid")))
    assert found.scores.mean_pearson == pytest.approx(float(rho.mean()))


def test_what_cannot_be_predicted_is_refused(two: list[Path]) -> None:
    with pytest.raises(TrainingError, match="no clip in 'test'"):
        predict_split(two, CLIPS, "test")
    with pytest.raises(TrainingError, match="no clip in 'nonsense'"):
        predict_split(two, CLIPS, "nonsense")
    other = replace(WITH_TEST, encoders={**WITH_TEST.encoders, "text": "another@2"})
    with pytest.raises(TrainingError, match="another@2"):
        predict_split(two, other, "test")


@pytest.mark.parametrize("system", ["taemi", "two_stage", "dual_stage"])
def test_on_train_and_valid_each_stage_keeps_its_last_epoch(system: str, tmp_path: Path) -> None:
    config = small(system, max_epochs=3, patience=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"use": "train+valid"})})
    result = fit(system, CLIPS, tmp_path / "all", config)
    assert [stage.best_epoch for stage in result.stages] == [3] * len(result.stages)
    assert {len(stage.history) for stage in result.stages} == {3}
    header = read_header(result.checkpoint)
    assert header.scores == {}
    assert header.notes["use"] == "train+valid"
    assert header.notes["validation"].startswith("none: 24 train and 12 valid")
    assert "trained on" in evaluate_checkpoint(result.checkpoint, CLIPS, prefixes=()).split


def test_such_a_training_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    config = small("taemi", max_epochs=3)
    config = config.model_copy(update={"data": config.data.model_copy(update={"use": "train+valid"})})
    whole = fit("taemi", CLIPS, tmp_path / "whole", config)
    short, cut = tmp_path / "short", CutOff(5, KeyboardInterrupt())  # three lines, then one for each epoch
    with pytest.raises(KeyboardInterrupt):
        fit("taemi", CLIPS, short, config, console=cut.console())
    assert (short / "stages" / "1-fusion" / "last.ckpt").is_file()
    resumed = fit("taemi", CLIPS, short, config, resume=True)
    ours, theirs = (load_checkpoint(run.checkpoint).network.state_dict() for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_after_four_to_one_valid_is_what_training_left(tmp_path: Path) -> None:
    config = small("taemi", max_epochs=2)
    config = config.model_copy(update={"data": config.data.model_copy(update={"use": "4:1"})})
    result = fit("taemi", CLIPS, tmp_path / "run", config)
    found = evaluate_checkpoint(result.checkpoint, CLIPS, prefixes=())
    assert found.n == round(36 / 5)
    assert found.whole.mean_pearson == pytest.approx(result.score, abs=1e-5)
