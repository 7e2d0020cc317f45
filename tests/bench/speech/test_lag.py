from __future__ import annotations

import pytest

from emi_bench.speech.lag import in_spans, slope


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
    assert in_spans(points) == [(22.5, 20.0), (37.5, 7.0), (67.5, 8.0)]
