from __future__ import annotations

import numpy as np
import pytest

from emi_live.clock import NS_PER_S
from emi_live.fusion_loop import Smoother

HOP_NS = NS_PER_S // 5


def course(values: list[float], smooth_s: float, hop_ns: int = HOP_NS) -> list[float]:
    smooth = Smoother(smooth_s)
    return [float(smooth.push(np.array([value]), n * hop_ns)[0]) for n, value in enumerate(values)]


def test_zero_seconds_change_nothing() -> None:
    values = [0.1, 0.9, 0.2]
    assert course(values, 0.0) == values


def test_a_value_that_trembles_is_smoothed() -> None:
    values = [0.3 + 0.02 * (-1) ** n for n in range(50)]
    assert np.ptp(course(values, 0.6)[10:]) < 0.5 * np.ptp(values)


@pytest.mark.parametrize("hop_ns", [HOP_NS, HOP_NS // 4])
def test_a_jump_is_followed_by_time_and_not_by_hops(hop_ns: int) -> None:
    hops = NS_PER_S // hop_ns  # of a second
    after = course([0.0] + [1.0] * hops, 1.0, hop_ns)
    assert after[-1] == pytest.approx(1 - np.exp(-1))


def test_after_a_gap_it_starts_again() -> None:
    smooth = Smoother(1.0)
    smooth.push(np.array([0.0]), 0)
    assert smooth.push(np.array([1.0]), 4 * NS_PER_S).tolist() == [1.0]
