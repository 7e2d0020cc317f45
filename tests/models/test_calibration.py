from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models import EMOTIONS
from emi_models.calibration import NONE, Calibration, IntervalTable, fit_table

RNG = np.random.default_rng(5)


def files(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates, and ratings that are further from the larger ones."""
    estimates = RNG.beta(1, 3, n)
    return estimates, np.clip(estimates * (1 + RNG.normal(0, 0.5, n)), 0, 1)


def covered(
    table: IntervalTable, estimates: NDArray[np.float64], ratings: NDArray[np.float64]
) -> NDArray[np.bool_]:
    below, above = np.array([table.widths(estimate) for estimate in estimates]).T
    inside: NDArray[np.bool_] = (ratings >= estimates - below) & (ratings <= estimates + above)
    return inside


def test_nine_of_ten_new_ratings_are_inside_for_small_and_large_estimates() -> None:
    table = fit_table(*files(4000))
    assert table is not None
    estimates, ratings = files(4000)
    inside = covered(table, estimates, ratings)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    for part in (estimates < 0.1, estimates > 0.5):
        assert inside[part].mean() == pytest.approx(0.9, abs=0.05)


def test_intervals_by_the_estimate_are_narrower_than_a_constant_one() -> None:
    fitted, new = files(4000), files(4000)
    table, constant = fit_table(*fitted), fit_table(*fitted, bins=1)
    assert table is not None
    assert constant is not None
    assert len(constant.below) == 1
    mean = np.mean([sum(table.widths(estimate)) for estimate in new[0]])
    assert mean < 0.85 * (constant.below[0] + constant.above[0])


def test_ratings_that_are_mostly_zero_bound_an_estimate_from_above_alone() -> None:
    estimates = RNG.uniform(0, 0.2, 2000)
    table = fit_table(estimates, np.where(RNG.random(2000) < 0.03, 1.0, 0.0))
    assert table is not None
    assert max(table.above) == 0.0


def test_few_files_give_few_bins_or_none() -> None:
    assert fit_table(*files(49)) is None
    few = fit_table(*files(120))
    assert few is not None
    assert len(few.below) == 2
    same = fit_table(np.full(400, 0.1), RNG.uniform(0, 1, 400))
    assert same is not None
    assert len(same.below) == 1


def calibration() -> Calibration:
    flat = {emotion: IntervalTable((), (0.4,), (0.4,), 100) for emotion in EMOTIONS}
    face = {"joy": IntervalTable((0.5,), (0.1, 0.2), (0.1, 0.2), 100)}
    return Calibration(
        {NONE: flat, "vision": face, "text": {"joy": IntervalTable((), (0.15,), (0.15,), 100)}}
    )


def joy(*used: Any, at: float = 0.3, gone: float = 0.0) -> tuple[float, float] | None:
    return calibration().intervals([at] * len(EMOTIONS), used, gone)[EMOTIONS.index("joy")]


def test_an_interval_goes_by_the_modalities_that_are_used() -> None:
    assert joy("vision") == pytest.approx((0.2, 0.4))
    assert joy("vision", at=0.9) == pytest.approx((0.7, 1.0))
    assert joy("vision", "text") == pytest.approx((0.15, 0.45))  # the wider one of both
    assert joy() == pytest.approx((0.0, 0.7))


def test_an_interval_widens_as_the_evidence_goes() -> None:
    widths = [high - low for low, high in filter(None, (joy("vision", gone=g) for g in (0, 0.5, 1.0)))]
    assert widths == pytest.approx([0.2, 0.5, 0.7])


def test_what_nobody_rated_has_no_interval() -> None:
    assert joy("audio") is None
    assert calibration().intervals([0.3] * 6, ["vision"])[0] is None


def test_a_calibration_survives_the_header() -> None:
    assert Calibration.parse(calibration().to_json()) == calibration()


@pytest.mark.parametrize(
    "found",
    [
        {"smell": {}},
        {"vision": {"anger": {"edges": [], "below": [0.1], "above": [0.1], "n": 1}}},
        {"vision": {"joy": {"edges": [0.5], "below": [0.1], "above": [0.1], "n": 1}}},
        {"vision": {"joy": {"edges": [0.5, 0.2], "below": [0.1] * 3, "above": [0.1] * 3, "n": 1}}},
        {"vision": {"joy": {"edges": [], "below": [0.1], "above": [float("nan")], "n": 1}}},
        {"vision": {"joy": {"edges": [], "below": ["wide"], "above": [0.1], "n": 1}}},
    ],
)
def test_a_damaged_calibration_is_refused(found: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Calibration.parse(found)
