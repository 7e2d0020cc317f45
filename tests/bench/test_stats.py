from __future__ import annotations

import math
from fractions import Fraction

import pytest

from emi_bench.measurement import Distribution, means_of_spans, percentile, slope


def test_a_line_has_its_slope_and_no_error() -> None:
    found = slope([(t_s, 100.0 + 0.5 * t_s) for t_s in (0.0, 20.0, 50.0, 90.0)])
    assert found is not None
    assert found.ms_per_minute == pytest.approx(30.0)
    assert found.standard_error == pytest.approx(0.0, abs=1e-9)
    assert found.n == 4


def test_what_the_line_leaves_unexplained_is_its_standard_error() -> None:
    # By hand: x = 0..3 minutes, y = 0, 2, 1, 3; slope 0.8, residual sum of squares 1.8, sqrt(1.8 / 2 / 5).
    found = slope([(0.0, 0.0), (60.0, 2.0), (120.0, 1.0), (180.0, 3.0)])
    assert found is not None
    assert found.ms_per_minute == pytest.approx(0.8)
    assert found.standard_error == pytest.approx(0.18**0.5)


def test_of_three_points_there_is_no_slope() -> None:
    assert slope([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]) is None


def test_spans_are_means_without_the_first() -> None:
    points = [(1.0, 900.0), (15.0, 10.0), (29.9, 30.0), (31.0, 7.0), (65.0, 8.0)]
    assert means_of_spans(points) == [(22.5, 20.0), (37.5, 7.0), (67.5, 8.0)]


@pytest.mark.parametrize("p", ["50", "90", "95", "99", "99.9"])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(p: str) -> None:
    for n in (*range(1, 301), 1_000, 10_000):
        rank = math.ceil(Fraction(p) * n / 100)
        assert percentile(range(1, n + 1), float(p)) == rank, n


def test_percentiles_are_values_that_were_measured_in_any_order() -> None:
    values = [5.0, 1.0, 9.5, 3.0]
    assert [percentile(values, p) for p in (0, 25, 50, 75, 90, 100)] == [1.0, 1.0, 3.0, 5.0, 9.5, 9.5]
    for p in (-1.0, 101.0, math.nan):
        with pytest.raises(ValueError, match="percentile"):
            percentile(values, p)
    with pytest.raises(ValueError, match="percentile"):
        percentile([], 50)


def test_a_distribution_has_its_ranks_and_its_spread() -> None:
    found = Distribution.of([float(value) for value in range(10, 0, -1)])
    assert found is not None
    assert (found.n, found.min, found.max, found.mean) == (10, 1.0, 10.0, 5.5)
    assert (found.median, found.p90, found.p95, found.p99) == (5.0, 9.0, 10.0, 10.0)
    assert found.cv == pytest.approx(8.25**0.5 / 5.5)
    assert Distribution.of([]) is None
