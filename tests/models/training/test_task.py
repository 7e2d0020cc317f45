"""What one stage does step by step: its order, what it cuts short, and averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from emi_models.data.batches import ClipWindows
from emi_models.inputs import FusionInputs
from emi_models.networks.dual_stage import DualStage, DualStageConfig
from emi_models.networks.two_stage import TwoStage, TwoStageConfig
from emi_models.training.config import DataSettings, StageSettings, TrainingSettings
from emi_models.training.evaluate import evaluate
from emi_models.training.fit import own_state
from emi_models.training.papers import recipe_of
from emi_models.training.task import Keeper, Shares, Shuffled, StageTask, seed_of
from tests.models.training.sets import SHAPES, memory_set

CONFIG = DualStageConfig(shapes=SHAPES, shared=8, d_model=8, heads=2, layers=1, tcn_layers=2, segments=2)
CLIPS = memory_set(24, 12)
EPOCHS = 2


class Witness(Callback):
    """Writes down each step's batch, and the trained weights after it."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.batches: list[tuple[FusionInputs, torch.Tensor]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: StageTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.weights.append({n: t.detach().clone() for n, t in task.objective.network.state_dict().items()})
        self.batches.append(batch)


def train(folder: Path, data: DataSettings, learning_rate: float = 0.03) -> tuple[Witness, Keeper, StageTask]:
    """Stage two of the dual network, two epochs of three steps."""
    settings = TrainingSettings(batch_size=8, max_epochs=EPOCHS, learning_rate=learning_rate)
    stage = recipe_of("dual_stage").adjusted_stages(CONFIG, settings)[1]
    torch.manual_seed(0)
    learn = ClipWindows(CLIPS, "train", data.prefixes)
    task = StageTask(stage.objective(DualStage(CONFIG)), stage, learn, ClipWindows(CLIPS, "valid"), 0, data)
    witness, keeper = Witness(), Keeper(folder, stage.margin, stage.patience)
    with own_state(settings, torch.device("cpu")):
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            callbacks=[witness, keeper],
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(task)
    return witness, keeper, task


def test_an_order_hangs_on_its_seed_alone() -> None:
    order = Shuffled(10, 3)
    torch.manual_seed(1)
    first = list(order)
    torch.manual_seed(2)
    assert list(order) == first == list(Shuffled(10, 3))
    assert sorted(first) == list(range(10))
    assert list(Shuffled(10, 4)) != first
    assert seed_of(0, "fusion", "order", 1) != seed_of(0, "fusion", "order", 2)
    assert 0 <= seed_of("x") < 2**63


@pytest.mark.parametrize("bucketed", [False, True])
def test_each_epoch_shows_every_clip_once_in_an_order_of_its_own(bucketed: bool, tmp_path: Path) -> None:
    witness, _, task = train(tmp_path, DataSettings(bucketed=bucketed))
    assert task.epoch_steps == 3
    targets = [batch[1] for batch in witness.batches]
    first, second = torch.cat(targets[:3]), torch.cat(targets[3:])
    assert not torch.equal(first, second)
    for epoch in (first, second):
        rows = torch.from_numpy(CLIPS.targets("train"))
        assert torch.equal(epoch[epoch[:, 0].argsort()], rows[rows[:, 0].argsort()])


def test_each_epoch_cuts_clips_short_in_its_own_way(tmp_path: Path) -> None:
    witness, _, _ = train(tmp_path, DataSettings(prefixes=1.0))

    def frames(epoch: int) -> dict[float, int]:
        """How many voice frames each clip has, by its first rating."""
        batches = witness.batches[3 * epoch : 3 * epoch + 3]
        return {
            rating.item(): int(mask.sum())
            for window, targets in batches
            for rating, mask in zip(targets[:, 0], window.audio_mask, strict=True)
        }

    assert frames(0).keys() == frames(1).keys()
    assert frames(0) != frames(1)


def test_averaged_weights_follow_by_hand_and_are_scored_and_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    average = {name: t.clone() for name, t in DualStage(CONFIG).state_dict().items()}
    witness, keeper, _ = train(tmp_path, DataSettings())
    by_epoch = []
    for step, quick in enumerate(witness.weights, start=1):
        decay = min(0.999, (1 + step) / (10 + step))
        average = {name: t + (1 - decay) * (quick[name] - t) for name, t in average.items()}
        if step % 3 == 0:
            by_epoch.append(average)
    assert len(by_epoch) == EPOCHS
    kept = load_file(tmp_path / "best.safetensors")
    expected = by_epoch[keeper.best_epoch - 1]
    for name, value in kept.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    quick = witness.weights[3 * keeper.best_epoch - 1]
    assert any((kept[name] - quick[name]).abs().max() > 1e-3 for name in kept), "else nothing was averaged"

    network = DualStage(CONFIG)
    for weights, scored in ((kept, True), (quick, False)):
        network.load_state_dict(weights)
        found = evaluate(network, CLIPS, prefixes=()).whole.mean_pearson
        assert (found == pytest.approx(keeper.best, abs=1e-5)) is scored


def test_only_what_is_trained_asks_for_gradients(tmp_path: Path) -> None:
    _, _, task = train(tmp_path, DataSettings())
    asking = {name for name, p in task.objective.network.named_parameters() if p.requires_grad}
    assert asking
    assert not any(name.startswith(("project", "logit_scale")) for name in asking)
    assert task.averaged is not None
    assert not any(p.requires_grad for p in task.averaged.parameters())


@pytest.mark.parametrize(("rate", "rates"), [(None, [1.0, 0.05]), (0.5, [1.0, 0.5]), (0.0, [1.0])])
def test_encoders_of_an_earlier_stage_have_a_rate_of_their_own(
    rate: float | None, rates: list[float]
) -> None:
    config = TwoStageConfig(shapes=SHAPES, hidden=8, fusion_hidden=8)
    settings = TrainingSettings(stages={"fusion": StageSettings(encoder_rate=rate)})
    stage = recipe_of("two_stage").adjusted_stages(config, settings)[-1]
    learn = ClipWindows(CLIPS, "train")
    task = StageTask(stage.objective(TwoStage(config)), stage, learn, None, 0, DataSettings())
    groups = task.configure_optimizers().param_groups
    assert [group["lr"] / stage.learning_rate for group in groups] == pytest.approx(rates)
    encoders = task.objective.network.get_submodule("encoders")
    assert {p.requires_grad for p in encoders.parameters()} == {len(rates) == 2}


def test_processes_share_each_batch_and_lose_no_row() -> None:
    batches = [[0, 1, 2, 3], [4, 5, 6], [7]]
    shares = [list(Shares(batches, rank, 2)) for rank in (0, 1)]  # type: ignore[arg-type]  # a list of batches will do
    assert shares == [[[0, 2], [4, 6], [7]], [[1, 3], [5]]]
