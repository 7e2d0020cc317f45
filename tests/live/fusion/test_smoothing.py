from __future__ import annotations

import numpy as np
import pytest

from emi_live.clock import NS_PER_S
from emi_live.fusion.smoothing import OneEuro

HOP_NS = NS_PER_S // 5


def course(values: list[float], smooth_s: float) -> list[float]:
    smooth = OneEuro(smooth_s)
    return [float(smooth.push(np.array([value]), n * HOP_NS)[0]) for n, value in enumerate(values)]


def test_zero_seconds_change_nothing() -> None:
    values = [0.1, 0.9, 0.2]
    assert course(values, 0.0) == values


def test_a_value_at_rest_trembles_less() -> None:
    values = [0.3 + 0.02 * (-1) ** n for n in range(50)]
    assert np.ptp(course(values, 0.6)[10:]) < 0.5 * np.ptp(values)


def test_a_jump_is_followed_sooner_than_by_a_plain_low_pass() -> None:
    values = [0.0] * 5 + [1.0] * 5
    after = course(values, 1.0)
    plain = 1 - np.exp(-0.2)
    assert after[5] > 2.5 * plain
    assert after[4] == 0.0
    assert after[-1] == pytest.approx(1.0, abs=0.05)


def test_after_a_gap_it_starts_again() -> None:
    smooth = OneEuro(1.0)
    smooth.push(np.array([0.0]), 0)
    assert smooth.push(np.array([1.0]), 4 * NS_PER_S).tolist() == [1.0]
