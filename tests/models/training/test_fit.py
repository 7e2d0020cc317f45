"""What a training leaves: the best network, its metadata, its curves; what stages touch and what not."""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from emi_models import EMOTIONS
from emi_models.checkpoint import load_checkpoint, read_header
from emi_models.data.clip import Clip
from emi_models.errors import DataError, TrainingError
from emi_models.targets import Target
from emi_models.training.config import TrainConfig
from emi_models.training.evaluate import evaluate
from emi_models.training.fit import fit, network_for
from emi_models.training.papers import recipe_of
from emi_models.training.task import seed_of
from tests.models.training.sets import ENCODERS, MemorySet, Named, memory_set, random_clips
from tests.models.training.small import NETWORKS, CutOff, small

CLIPS = memory_set(24, 12)
SYSTEMS = ("taemi", "two_stage", "dual_stage", "semantic_matters")


def start(system: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights that a training begins with."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "weights"))
        return network_for(system, recipe_of(system), CLIPS, NETWORKS[system]).state_dict()


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_training_leaves_a_checkpoint_that_tells_its_story(system: str, tmp_path: Path) -> None:
    result = fit(system, CLIPS, tmp_path / "run", small(system, seed=3, max_epochs=2))
    header = read_header(result.checkpoint)
    assert (header.system, header.encoders, header.emotions) == (system, ENCODERS, EMOTIONS)
    assert (header.data, header.licence) == (CLIPS.description, CLIPS.licence)
    assert header.modalities == ("vision", "audio", "text")
    last = result.stages[-1]
    assert header.scores["valid_pearson_mean"] == round(result.score, 4)
    assert set(header.scores) == {"valid_pearson_mean"} | {f"valid_pearson_{e}" for e in EMOTIONS}
    assert f"emi train, {system}, seed 3, epoch {last.best_epoch} of fusion; emi-live " in header.created_by
    assert f"torch {version('torch')}" in header.created_by
    assert "absent" in header.notes["missing"]
    assert header.notes["validation"] == "the set's own valid split, 12 rated clips"
    network = load_checkpoint(result.checkpoint).network
    assert evaluate(network, CLIPS, prefixes=()).whole.mean_pearson == pytest.approx(result.score, abs=1e-6)


def test_each_stage_has_a_csv_and_all_have_one_picture(tmp_path: Path) -> None:
    result = fit("dual_stage", CLIPS, tmp_path, small("dual_stage", max_epochs=2))
    for number, stage in enumerate(result.stages, start=1):
        path = tmp_path / "stages" / f"{number}-{stage.name}" / "metrics.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2]
        assert [float(row["score"]) for row in rows] == [row["score"] for row in stage.history]
        assert {"train_loss", "valid_loss", "learning_rate"} <= rows[0].keys()
        assert not (path.parent / "last.ckpt").exists()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path) -> None:
    result = fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=8, learning_rate=0.1, patience=8))
    (stage,) = result.stages
    scores = [row["score"] for row in stage.history]
    assert len(scores) == 8
    assert stage.best_epoch == 1 + int(np.argmax(scores)) < 8, "else this shows nothing"
    assert result.score == max(scores)
    network = load_checkpoint(result.checkpoint).network
    found = evaluate(network, CLIPS, prefixes=()).whole.mean_pearson
    assert found == pytest.approx(max(scores), abs=1e-6)
    assert abs(found - scores[-1]) > 0.01


def test_patience_ends_a_stage(tmp_path: Path) -> None:
    result = fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=30, learning_rate=0.1, patience=2))
    (stage,) = result.stages
    assert len(stage.history) == stage.best_epoch + 2 < 30


def test_a_margin_is_asked_of_what_is_better(tmp_path: Path) -> None:
    config = small("two_stage", max_epochs=6, learning_rate=1e-6)  # scores that creep up by less than 1e-4
    for stage in fit("two_stage", CLIPS, tmp_path, config).stages:
        scores = [row["score"] for row in stage.history]
        best = scores[stage.best_epoch - 1]
        assert all(score <= best + 1e-4 for score in scores)
        if stage.name == "vision":
            assert max(scores) > scores[0]
            assert stage.best_epoch == 1


def test_the_aligned_projections_stand_still_in_stage_two(tmp_path: Path) -> None:
    config = small("dual_stage", max_epochs=2, learning_rate=0.01)
    result = fit("dual_stage", CLIPS, tmp_path, config)
    first, aligned = start("dual_stage"), load_file(tmp_path / "stages" / "1-align" / "best.safetensors")
    final = load_file(result.checkpoint)
    assert {name.partition(".")[0] for name in moved(first, aligned)} == {"project", "logit_scale"}
    fused = moved(aligned, final)
    assert fused
    assert not any(name.startswith(("project", "logit_scale")) for name in fused)


def test_the_branches_are_trained_one_by_one_and_all_of_them_in_the_fusion(tmp_path: Path) -> None:
    result = fit("two_stage", CLIPS, tmp_path, small("two_stage", max_epochs=1, learning_rate=0.01))
    before = start("two_stage")
    for number, name in enumerate(("text", "audio", "vision", "motion"), start=1):
        after = load_file(tmp_path / "stages" / f"{number}-{name}" / "best.safetensors")
        changed = moved(before, after)
        assert changed
        assert all(parameter.startswith(f"encoders.{name}.") for parameter in changed)
        before = after
    changed = moved(before, load_file(result.checkpoint))
    assert {name.split(".")[1] for name in changed if name.startswith("encoders")} == {
        *("text", "audio", "vision", "motion")
    }
    assert any(name.startswith("fusion") for name in changed)


def test_a_frozen_parameter_is_free_again_after_the_training(tmp_path: Path) -> None:
    result = fit("dual_stage", CLIPS, tmp_path, small("dual_stage", max_epochs=1))
    assert all(p.requires_grad for p in load_checkpoint(result.checkpoint).network.parameters())


def test_a_set_without_a_valid_split_is_said_in_the_header(tmp_path: Path) -> None:
    clips = MemorySet(splits={"train": random_clips(20)})
    config = small("taemi", max_epochs=1)
    config = TrainConfig.model_validate(
        config.model_dump(exclude_defaults=True) | {"data": {"held_out": 0.3, "held_out_seed": 7}}
    )
    notes = read_header(fit("taemi", clips, tmp_path, config).checkpoint).notes
    assert notes["validation"] == "6 of 20 train clips, drawn with seed 7; people may be in both"
    assert (notes["held_out"], notes["held_out_seed"]) == ("0.3", "7")


def test_spans_and_prefixes_are_in_the_header(tmp_path: Path) -> None:
    values = small("taemi", max_epochs=1).model_dump(exclude_defaults=True)
    config = TrainConfig.model_validate(values | {"data": {"spans_s": {"vision": 2.0}, "prefixes": 0.5}})
    header = read_header(fit("taemi", CLIPS, tmp_path, config).checkpoint)
    assert header.spans_s == {"vision": 2.0}
    assert "0.5 of the training windows" in header.notes["prefixes"]


def test_ambivalence_is_trained_and_scored_by_weighted_f1(tmp_path: Path) -> None:
    class Answers(Named):
        def targets(self, split: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return (MemorySet(splits=self.splits).targets(split)[:, :1] > 0.4).astype(np.float32)

    clips = Answers(splits=CLIPS.splits, task="bah", rated=(Target("ambivalence"),))
    result = fit(
        "semantic_matters", clips, tmp_path, small("semantic_matters", max_epochs=2, learning_rate=0.01)
    )
    header = read_header(result.checkpoint)
    assert (header.config["task"], header.emotions) == ("bah", ())
    assert header.scores == {"valid_weighted_f1": round(result.score, 4)}
    found = evaluate(load_checkpoint(result.checkpoint).network, clips)
    assert found.whole.weighted_f1 == pytest.approx(result.score)
    assert found.whole.to_json().keys() == {"n", "weighted_f1", "macro_f1", "average_precision"}
    assert found.prefixes == ()
    with pytest.raises(TrainingError, match="bah"):
        fit("taemi", clips, tmp_path / "emi", small("taemi"))


def test_progress_is_a_line_for_each_epoch_where_there_is_no_terminal(tmp_path: Path) -> None:
    told = io.StringIO()
    fit(
        "dual_stage",
        CLIPS,
        tmp_path,
        small("dual_stage", max_epochs=2),
        console=Console(file=told, width=200),
    )
    lines = told.getvalue().splitlines()
    assert lines[0].startswith("dual_stage: ")
    assert lines[0].endswith("parameters on vision, audio, text; cpu, 32-true, frozen encoders")
    assert (
        lines[1] == "clips of a test; 24 clips train, validated on the set's own valid split, 12 rated clips"
    )
    assert lines[2].startswith("align: epoch 1/2  valid loss ")
    assert lines[4].startswith("align: valid loss ")
    assert "fusion: epoch 2/2  valid Pearson " in lines[6]


def test_on_a_terminal_there_is_a_bar_with_the_score(tmp_path: Path) -> None:
    told = io.StringIO()
    console = Console(file=told, width=120, force_terminal=True)
    fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=2), console=console)
    assert "epoch 2/2  valid Pearson" in told.getvalue()


def test_nothing_is_shown_or_changed_unless_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("lightning.pytorch").level
    threads = torch.get_num_threads()
    fit("taemi", memory_set(8, 4), tmp_path, small("taemi", max_epochs=1, threads=2))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.pytorch").level == level
    assert torch.get_num_threads() == threads


def test_a_loss_that_is_not_finite_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        fit("taemi", blown_up(), tmp_path, small("taemi"))


def blown_up() -> MemorySet:
    """Clips whose words are beyond what single precision can square."""

    def huge(clip: Clip) -> Clip:
        values = np.full_like(clip.text.values, 3e38)
        return replace(clip, text=replace(clip.text, values=values))

    return replace(
        CLIPS, splits={name: [huge(clip) for clip in clips] for name, clips in CLIPS.splits.items()}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "'tpu'"),
        ({"device": "cuda:9"}, "cuda:9"),
        ({"device": "cpu", "precision": "fp16"}, "fp16"),
        ({"stages": {"fusoin": {}}}, "fusoin"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate({"training": settings, "network": NETWORKS["taemi"]})
    with pytest.raises(TrainingError, match=message):
        fit("taemi", CLIPS, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_half_precision_trains_too(tmp_path: Path) -> None:
    result = fit("taemi", CLIPS, tmp_path, small("taemi", max_epochs=1, precision="bf16"))
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == "bf16-mixed"
    assert all(t.dtype == torch.float32 for t in load_file(result.checkpoint).values())


def test_clips_count_by_their_raters_if_these_are_told(tmp_path: Path) -> None:
    lines = [f"{clip_id},{1 + 8 * (n % 2)}" for n, clip_id in enumerate(CLIPS.ids("train"))]
    (tmp_path / "raters.csv").write_text("id,raters\n" + "\n".join(lines) + "\n")
    values = small("taemi", max_epochs=1).model_dump(exclude_defaults=True)
    raters = {"raters": tmp_path / "raters.csv"}
    told = CutOff(99, OSError())
    weighed = TrainConfig.model_validate(values | {"data": raters})
    result = fit("taemi", CLIPS, tmp_path / "weighed", weighed, console=told.console())
    assert "0.50 to 1.50 times" in told.getvalue()
    assert "raters" in read_header(result.checkpoint).notes
    alike = fit("taemi", CLIPS, tmp_path / "alike", TrainConfig.model_validate(values))
    assert moved(load_file(alike.checkpoint), load_file(result.checkpoint))
    (tmp_path / "raters.csv").write_text("id,raters\n" + "\n".join(lines[1:]) + "\n")
    with pytest.raises(DataError, match=CLIPS.ids("train")[0]):
        fit("taemi", CLIPS, tmp_path / "less", weighed)
    both = TrainConfig.model_validate(values | {"data": {**raters, "bucketed": True}})
    with pytest.raises(TrainingError, match="bucketed"):
        fit("taemi", CLIPS, tmp_path / "both", both)


@pytest.mark.slow
def test_several_processes_may_read_clips(tmp_path: Path) -> None:
    values = small("taemi", max_epochs=2).model_dump(exclude_defaults=True)
    fit("taemi", CLIPS, tmp_path / "none", TrainConfig.model_validate(values))
    fit("taemi", CLIPS, tmp_path / "one", TrainConfig.model_validate(values | {"data": {"workers": 1}}))
    assert not moved(*(load_file(tmp_path / name / "checkpoint.safetensors") for name in ("none", "one")))


def test_a_lost_best_network_is_said(tmp_path: Path) -> None:
    class PowerCutError(Exception):
        """Nothing more is done."""

    told = CutOff(7, PowerCutError())
    with pytest.raises(PowerCutError):
        fit("dual_stage", CLIPS, tmp_path, small("dual_stage", max_epochs=2), console=told.console())
    (tmp_path / "stages" / "1-align" / "best.safetensors").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"best\.safetensors"):
        fit("dual_stage", CLIPS, tmp_path, small("dual_stage", max_epochs=2), resume=True)
