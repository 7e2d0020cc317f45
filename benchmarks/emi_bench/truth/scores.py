"""Agreement with ratings: r, rho and AUC with bootstrap intervals, and ridge regression for comparison.

Files of one speaker are not independent, so intervals resample speakers, and ridge regression is fitted
without the speakers that it is scored on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.truth_report import Agreement

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Folds", "agreement", "auc", "best_column", "pearson", "ridge", "spearman"]

REPEATS: Final = 1000  # of the bootstrap
TAIL: Final = 0.025  # on each side: intervals cover 95 %
LEAST: Final = 5  # ratings that are needed for a correlation
LEAST_OF_A_KIND: Final = 3  # high and low ratings that are needed for an AUC
FOLDS: Final = 10
# Strengths of ridge regression that are tried, as shares of the number of files.
STRENGTHS: Final = 10.0 ** np.arange(-4, 2.5, 0.5)


def agreement(
    scores: NDArray[np.float64],
    ratings: NDArray[np.float64],
    high: NDArray[np.bool_],
    clusters: NDArray[np.intp],
    seed: int = 0,
) -> Agreement:
    """Agreement of scores (n,) with ratings (n,), with 95 % percentile intervals of a cluster bootstrap.

    Args:
        scores: what is judged.
        ratings: what people said.
        high: which ratings count as high, for the AUC.
        clusters: the number of each file's speaker; all files of a drawn speaker are drawn together.
        seed: of the bootstrap.
    """
    names, numbers = np.unique(clusters, return_inverse=True)
    rows = [np.flatnonzero(numbers == index) for index in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {"r": [], "rho": [], "auc": []}
    if len(rows) > 1:
        for _ in range(REPEATS):
            chosen = np.concatenate([rows[index] for index in rng.integers(len(rows), size=len(rows))])
            for name, value in _all_three(scores[chosen], ratings[chosen], high[chosen]).items():
                if value is not None:
                    drawn[name].append(value)
    found = _all_three(scores, ratings, high)
    interval = {name: _interval(drawn[name]) if found[name] is not None else None for name in found}
    return Agreement(
        n=len(scores),
        clusters=len(names),
        r=found["r"],
        r_interval=interval["r"],
        rho=found["rho"],
        rho_interval=interval["rho"],
        auc=found["auc"],
        auc_interval=interval["auc"],
        n_high=int(high.sum()),
        n_low=int((~high).sum()),
    )


def pearson(scores: NDArray[np.float64], ratings: NDArray[np.float64]) -> float | None:
    """Pearson's r; None for fewer than five values, or if one side is constant."""
    if len(scores) < LEAST:
        return None
    a, b = scores - scores.mean(), ratings - ratings.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    # Rounding leaves a constant with a tiny spread.
    flat = min(np.ptp(scores), np.ptp(ratings)) <= 1e-12
    return None if flat or size == 0 else float(a @ b / size)


def spearman(scores: NDArray[np.float64], ratings: NDArray[np.float64]) -> float | None:
    """Spearman's rho, ties with their mean rank; None as for `pearson`."""
    return pearson(_ranks(scores), _ranks(ratings))


def auc(scores: NDArray[np.float64], high: NDArray[np.bool_]) -> float | None:
    """The share of pairs of a high and a low rating in which the high one has the higher score; ties half.

    None for fewer than three of a kind.
    """
    n_high, n_low = int(high.sum()), int((~high).sum())
    if min(n_high, n_low) < LEAST_OF_A_KIND:
        return None
    won = float(_ranks(scores)[high].sum()) - n_high * (n_high + 1) / 2
    return won / (n_high * n_low)


def _all_three(
    scores: NDArray[np.float64], ratings: NDArray[np.float64], high: NDArray[np.bool_]
) -> dict[str, float | None]:
    return {"r": pearson(scores, ratings), "rho": spearman(scores, ratings), "auc": auc(scores, high)}


def _interval(drawn: list[float]) -> tuple[float, float] | None:
    """Percentiles of the bootstrap; None if most of its draws had no value."""
    if len(drawn) < REPEATS // 2:
        return None
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL])
    return float(low), float(high)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[where]
    return ranks


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """Which files are held out together, and which may be learned from.

    `fold` (n,): the number of the fold in which a file is scored, -1 for a file that is only learned from. No
    speaker is in two folds.
    """

    fold: NDArray[np.intp]

    @classmethod
    def of(cls, clusters: NDArray[np.intp], scored: NDArray[np.bool_]) -> Folds:
        """Speakers dealt to at most ten folds; all in one if others are left to learn from.

        Args:
            clusters: the number of each file's speaker (n,).
            scored: the files that are scored (n,); the rest is learned from.
        """
        fold = np.full(len(clusters), -1, np.intp)
        names, numbers = np.unique(clusters[scored], return_inverse=True)
        if not scored.all():
            fold[scored] = 0
            return cls(fold)
        order = np.random.default_rng(0).permutation(len(names))
        fold[scored] = order[numbers] % min(FOLDS, len(names))
        return cls(fold)

    def predict(
        self,
        features: NDArray[np.float64],
        ratings: NDArray[np.float64],
        learn: Callable[
            [NDArray[np.float64], NDArray[np.float64]], Callable[[NDArray[np.float64]], NDArray[np.float64]]
        ],
    ) -> NDArray[np.float64]:
        """Scores (n,) of each file by what was learned from the files of other folds; NaN where not scored.

        Args:
            features: (n, d).
            ratings: (n,).
            learn: takes features and ratings of the other files, and returns what scores features.
        """
        scores = np.full(len(ratings), np.nan)
        for number in np.unique(self.fold[self.fold >= 0]):
            held_out = self.fold == number
            if (~held_out).sum() >= LEAST:
                scores[held_out] = learn(features[~held_out], ratings[~held_out])(features[held_out])
        return scores


def ridge(
    features: NDArray[np.float64], ratings: NDArray[np.float64]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Ridge regression on standardised features (n, d); its strength has the least leave-one-out error."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 1e-9, deviation, np.inf)  # a constant feature says nothing
    x, centre = (features - mean) / deviation, float(ratings.mean())
    y = ratings - centre
    # The singular values and vectors of x, by the smaller matrix: files are many, features few.
    squares, columns = np.linalg.eigh(x.T @ x)
    kept = squares > 1e-9 * max(float(squares[-1]), 1e-9)
    values, right = np.sqrt(squares[kept]), columns[:, kept].T
    left = x @ right.T / values
    projected = left.T @ y
    best: tuple[float, NDArray[np.float64]] | None = None
    for strength in STRENGTHS * len(y):
        shrink = values**2 / (values**2 + strength)
        leverage = np.clip((left**2) @ shrink + 1 / len(y), 0.0, 1 - 1e-9)
        error = float((((y - left @ (shrink * projected)) / (1 - leverage)) ** 2).mean())
        if best is None or error < best[0]:
            best = error, right.T @ (values / (values**2 + strength) * projected)
    weights = np.zeros(x.shape[1]) if best is None else best[1]
    return lambda other: (other - mean) / deviation @ weights + centre


def best_column(features: NDArray[np.float64], ratings: NDArray[np.float64]) -> tuple[int, float]:
    """The feature (n, d) that alone follows the ratings best by |r|: its number, and the sign of its r."""
    found = [pearson(column, ratings) or 0.0 for column in features.T]
    index = int(np.argmax(np.abs(found)))
    return index, 1.0 if found[index] >= 0 else -1.0
