from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emi_bench.truth.scores import Folds, agreement, auc, best_column, pearson, ridge, spearman

RNG = np.random.default_rng(3)


def test_correlations_and_auc_are_those_of_scipy() -> None:
    scores = RNG.normal(size=60).round(1)  # with ties
    ratings = scores + RNG.normal(size=60)
    high = ratings > 0
    assert pearson(scores, ratings) == pytest.approx(stats.pearsonr(scores, ratings).statistic)
    assert spearman(scores, ratings) == pytest.approx(stats.spearmanr(scores, ratings).statistic)
    won = stats.mannwhitneyu(scores[high], scores[~high]).statistic / (high.sum() * (~high).sum())
    assert auc(scores, high) == pytest.approx(won)


@pytest.mark.parametrize("scores", [np.zeros(20), np.arange(4.0)])
def test_constant_or_few_scores_have_no_correlation(scores: np.ndarray) -> None:
    ratings = np.arange(float(len(scores)))
    assert pearson(scores, ratings) is None
    assert spearman(scores, ratings) is None


def test_an_auc_needs_three_of_each_kind() -> None:
    assert auc(np.arange(6.0), np.array([False] * 4 + [True] * 2)) is None
    assert auc(np.arange(6.0), np.array([False] * 3 + [True] * 3)) == 1.0


def test_files_of_one_speaker_widen_the_interval() -> None:
    """Ten speakers with twenty files each say less than two hundred speakers."""
    speaker = np.repeat(np.arange(10), 20)
    level = RNG.normal(size=10)[speaker]
    scores, ratings = level + 0.1 * RNG.normal(size=200), level + 0.5 * RNG.normal(size=200)
    high = ratings > 0
    by_speaker = agreement(scores, ratings, high, speaker).r_interval
    by_file = agreement(scores, ratings, high, np.arange(200)).r_interval
    assert by_speaker is not None
    assert by_file is not None
    assert by_speaker[1] - by_speaker[0] > 1.3 * (by_file[1] - by_file[0])


def test_one_speaker_gives_no_interval() -> None:
    found = agreement(np.arange(20.0), np.arange(20.0), np.arange(20) > 9, np.zeros(20, np.intp))
    assert found.r == pytest.approx(1.0)
    assert (found.r_interval, found.clusters) == (None, 1)


def test_no_speaker_is_in_two_folds_and_named_ones_alone_are_scored() -> None:
    speakers = RNG.integers(0, 25, 400)
    folds = Folds.of(speakers, np.ones(400, np.bool_)).fold
    assert {len(set(folds[speakers == each])) for each in range(25)} == {1}
    assert len(set(folds)) == 10
    scored = speakers < 5
    folds = Folds.of(speakers, scored).fold
    assert set(folds[scored]) == {0}
    assert set(folds[~scored]) == {-1}


def test_ridge_learns_what_the_features_say_and_nothing_from_noise() -> None:
    features = RNG.normal(size=(300, 40))
    features[:, 7] = 2.0  # constant
    clear = features[:, 0] - 2 * features[:, 1] + 5
    folds = Folds.of(np.arange(300), np.ones(300, np.bool_))
    assert stats.pearsonr(folds.predict(features, clear, ridge), clear).statistic > 0.99
    noise = RNG.normal(size=300)
    assert stats.pearsonr(folds.predict(features, noise, ridge), noise).statistic < 0.2


def test_the_best_column_may_go_the_other_way() -> None:
    features = RNG.normal(size=(50, 5))
    assert best_column(features, -features[:, 3]) == (3, -1.0)
