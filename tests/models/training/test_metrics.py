from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from emi_models.training.evaluate import concordance, mean_squared, pearson, score, weighted_f1


def columns(n: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(n, 6, generator=generator)
    return truth + 0.5 * torch.rand(n, 6, generator=generator), truth


def test_pearson_is_scipys_column_by_column() -> None:
    predicted, truth = columns()
    expected = [pearsonr(predicted[:, i].double(), truth[:, i].double()).statistic for i in range(6)]
    assert pearson(predicted, truth).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("which", ["predicted", "truth", "both"])
def test_a_column_that_does_not_vary_counts_nothing(which: str) -> None:
    predicted, truth = columns()
    if which in ("predicted", "both"):
        predicted[:, 3] = 0.1
    if which in ("truth", "both"):
        truth[:, 3] = 0.0
    rho, ccc = pearson(predicted, truth), concordance(predicted, truth)
    assert rho[3] == ccc[3] == 0
    assert bool((rho[[0, 1, 2, 4, 5]] > 0).all())
    assert score("pearson", predicted, truth)["score"] == pytest.approx(float(rho.sum()) / 6)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_clips_have_no_correlation(n: int) -> None:
    assert pearson(torch.rand(n, 6), torch.rand(n, 6)).tolist() == [0.0] * 6


def test_concordance_is_lins_formula_and_knows_scale() -> None:
    predicted, truth = columns()
    p, t = predicted.double().numpy(), truth.double().numpy()
    covariance = ((p - p.mean(0)) * (t - t.mean(0))).mean(0)
    expected = 2 * covariance / (p.var(0) + t.var(0) + (p.mean(0) - t.mean(0)) ** 2)
    assert concordance(predicted, truth).tolist() == pytest.approx(expected.tolist(), abs=0.02)
    assert bool((concordance(predicted, truth) < pearson(predicted, truth)).all())


def test_squared_error_by_column() -> None:
    predicted, truth = columns()
    expected = np.mean((predicted.double().numpy() - truth.double().numpy()) ** 2, axis=0)
    assert mean_squared(predicted, truth).tolist() == pytest.approx(expected.tolist())


def test_weighted_f1_by_hand() -> None:
    truth = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    logits = torch.tensor([[2.0], [-1.0], [3.0], [0.5]])
    yes, no = 2 * 2 / (2 * 2 + 1 + 1), 0.0  # two hits, one false alarm, one miss; the only no was missed
    assert float(weighted_f1(logits, truth)) == pytest.approx(0.75 * yes + 0.25 * no)
    assert float(weighted_f1(torch.ones(5, 1), torch.ones(5, 1))) == 1.0
