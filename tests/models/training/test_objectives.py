"""What each stage learns: its loss, what it trains, and which clips take part."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emi_models.data.batches import ClipWindows, collate
from emi_models.inputs import FusionInputs
from emi_models.networks.dual_stage import DualStage, DualStageConfig
from emi_models.networks.semantic_matters import SemanticMatters, SemanticMattersConfig
from emi_models.networks.two_stage import TwoStage, TwoStageConfig
from emi_models.training.papers import (
    Alignment,
    Branch,
    FrozenAlignment,
    Fusion,
    MultiTask,
    contrastive_loss,
    mixed_loss,
)
from emi_models.training.recipe import (
    Classification,
    Objective,
    concordance_loss,
    correlation_loss,
    cross_entropy,
    squared_error,
)
from tests.models.training.sets import SHAPES, memory_set

TWO_STAGE = TwoStageConfig(shapes=SHAPES, motion_dim=2, hidden=8, motion_hidden=4, fusion_hidden=8)
DUAL = DualStageConfig(shapes=SHAPES, shared=8, d_model=8, heads=2, layers=1, tcn_layers=2, segments=2)


def batch(missing: float = 0.3) -> tuple[FusionInputs, torch.Tensor]:
    windows = ClipWindows(memory_set(12, missing=missing), "train")
    return collate([windows[i] for i in range(len(windows))])


def trained(objective: Objective) -> set[str]:
    """The names of the network's parameters that get a gradient or a group."""
    chosen = {id(p) for group in objective.groups() for p in group.parameters}
    return {name for name, p in objective.network.named_parameters() if id(p) in chosen}


@given(st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_rows_that_do_not_count_change_no_loss(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, targets = torch.rand(2, n, 6, generator=generator)
    counts = torch.rand(n, generator=generator) < 0.6
    changed = torch.where(counts[:, None], predicted, 99.0)
    for loss in (squared_error, concordance_loss, mixed_loss, cross_entropy):
        whole = loss(predicted[counts], targets[counts]) if counts.any() else None
        assert torch.equal(loss(predicted, targets, counts), loss(changed, targets, counts))
        if whole is not None:
            torch.testing.assert_close(loss(predicted, targets, counts), whole)


def test_the_concordance_of_what_is_right_is_one_and_of_a_constant_nothing() -> None:
    targets = torch.rand(16, 6, generator=torch.Generator().manual_seed(0))
    assert concordance_loss(targets, targets).item() == pytest.approx(0.0, abs=1e-5)
    assert concordance_loss(torch.full_like(targets, 0.3), targets).item() == pytest.approx(1.0, abs=1e-5)
    assert concordance_loss(1 - targets, targets).item() > 1.5
    nobody = torch.zeros(16, dtype=torch.bool)
    flat = torch.full_like(targets, 0.5).requires_grad_()
    concordance_loss(flat, targets, nobody).backward()
    assert flat.grad is not None
    assert not flat.grad.any()


def test_the_two_stage_loss_is_seven_parts_concordance_and_three_parts_error() -> None:
    predicted, targets = torch.rand(2, 9, 6, generator=torch.Generator().manual_seed(1))
    expected = 0.7 * concordance_loss(predicted, targets) + 0.3 * torch.nn.functional.mse_loss(
        predicted, targets
    )
    torch.testing.assert_close(mixed_loss(predicted, targets), expected)


@pytest.mark.parametrize("name", ["text", "audio", "vision", "motion"])
def test_a_branch_learns_alone_from_the_clips_that_have_it(name: str) -> None:
    window, targets = batch()
    objective = Branch(TwoStage(TWO_STAGE), name)
    assert trained(objective) == {
        n for n, _ in objective.network.named_parameters() if f"encoders.{name}." in n
    }
    outcome = objective(window, targets)
    assert outcome.counts is not None
    assert 0 < int(outcome.counts.sum()) < len(targets)
    outcome.loss.backward()
    moved = {n for n, p in objective.network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved
    assert moved <= trained(objective)


def test_the_fusion_trains_every_encoder_slowly_and_motion_is_no_exception() -> None:
    objective = Fusion(TwoStage(TWO_STAGE))
    fusion, encoders = objective.groups()
    assert (fusion.encoders, encoders.encoders) == (False, True)
    assert trained(objective) == {name for name, _ in objective.network.named_parameters()}
    slow = {id(p) for p in encoders.parameters}
    assert all(id(p) in slow for p in objective.network.branch_parameters("motion"))


def test_modality_dropout_keeps_at_least_one_branch() -> None:
    network = TwoStage(
        TwoStageConfig(shapes=SHAPES, hidden=8, fusion_hidden=8, modality_dropout=0.95)
    ).train()
    seen: list[torch.Tensor] = []
    network.fusion[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    window, _ = batch(missing=0.4)
    present = torch.stack(list(network.presence(window).values())).any(dim=0)
    torch.manual_seed(0)
    for _ in range(50):
        network(window)
    vectors = torch.stack(seen)  # (50, B, 3 hidden)
    assert torch.equal(vectors.abs().sum(dim=2) > 0, present.expand(50, -1))
    assert (vectors.unflatten(2, (3, 8)).abs().sum(dim=3) == 0).any(), "and drops some"


def test_matching_pairs_have_the_least_contrastive_loss() -> None:
    unit = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    pairs, scale = torch.ones(6, dtype=torch.bool), torch.tensor(50.0)
    assert contrastive_loss(unit, unit, pairs, scale) < 0.01
    assert contrastive_loss(unit, unit.roll(1, 0), pairs, scale) > 5
    uniform = contrastive_loss(unit, unit, pairs, torch.tensor(0.0))
    assert uniform.item() == pytest.approx(torch.log(torch.tensor(6.0)).item())


@pytest.mark.parametrize("count", [0, 1, 4])
def test_rows_that_are_no_pair_are_nobodys_negatives(count: int) -> None:
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.randn(6, 8, generator=generator).requires_grad_() for _ in range(2))
    pairs, scale = torch.arange(6) < count, torch.tensor(2.0)
    loss = contrastive_loss(one, other, pairs, scale)
    loss.backward()
    assert one.grad is not None
    assert not one.grad[count:].any()
    alone = contrastive_loss(one[:count], other[:count], pairs[:count], scale)
    assert torch.equal(loss, alone)
    assert bool(loss.isfinite())
    assert (loss.item() == 0) == (count < 2)


def test_the_stages_of_the_dual_network_train_what_the_other_does_not() -> None:
    network = DualStage(DUAL)
    align, fusion = trained(Alignment(network)), trained(FrozenAlignment(network))
    assert not align & fusion
    assert align | fusion == {name for name, _ in network.named_parameters()}
    assert any(name.startswith("project") for name in align)
    window, targets = batch()
    outcome = Alignment(network)(window, targets)
    assert outcome.predicted is None
    outcome.loss.backward()
    assert {n for n, p in network.named_parameters() if p.grad is not None} == align


def test_the_multi_task_loss_is_kendalls_and_an_uncertain_modality_counts_less() -> None:
    network = SemanticMatters(SemanticMattersConfig(shapes=SHAPES, fusion="multitask", audio_hidden=8))
    window, targets = batch(missing=0.0)
    objective = MultiTask(network)
    outcome = objective(window, targets)
    with torch.no_grad():
        each = network.each(window)
        errors = ((each - targets[:, None]) ** 2).mean(dim=(0, 2))
    # All equally uncertain at the start; the fused prediction has no loss of its own, as in the paper.
    torch.testing.assert_close(outcome.loss.detach(), 0.5 * errors.sum())
    outcome.loss.backward()
    assert network.log_variance.grad is not None
    assert network.log_variance.grad.any()


def test_a_modality_that_a_batch_lacks_says_nothing_of_its_uncertainty() -> None:
    network = SemanticMatters(SemanticMattersConfig(shapes=SHAPES, fusion="multitask", audio_hidden=8))
    window, targets = batch(missing=0.0)
    MultiTask(network)(window.without("audio"), targets).loss.backward()
    assert network.log_variance.grad is not None
    vision, audio, text = network.log_variance.grad.tolist()
    assert audio == 0
    assert vision != 0
    assert text != 0


def test_one_logit_is_trained_by_cross_entropy() -> None:
    network = SemanticMatters(SemanticMattersConfig(shapes=SHAPES, task="bah", audio_hidden=8))
    window, targets = batch()
    answers = (targets[:, :1] > 0.5).float()
    outcome = Classification(network)(window, answers)
    assert outcome.predicted is not None
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outcome.predicted, answers)
    torch.testing.assert_close(outcome.loss, expected)


def test_squared_error_and_correlation_want_scale_and_order() -> None:
    generator = torch.Generator().manual_seed(4)
    targets = torch.rand(16, 6, generator=generator)
    assert correlation_loss(targets, targets).item() == pytest.approx(0, abs=1e-5)
    scaled = correlation_loss(3 * targets + 1, targets) - squared_error(3 * targets + 1, targets)
    assert scaled.item() == pytest.approx(0, abs=1e-5), "a correlation leaves scale open"
    turned = correlation_loss(1 - targets, targets) - squared_error(1 - targets, targets)
    assert turned.item() == pytest.approx(2, abs=1e-4)
    still = torch.full((16, 6), 0.5, requires_grad=True)
    correlation_loss(still, targets).backward()
    assert still.grad is not None
    assert bool(still.grad.isfinite().all())
    counts = torch.arange(16) < 8
    assert torch.allclose(
        correlation_loss(1 - targets, targets, counts), correlation_loss(1 - targets[:8], targets[:8])
    )
