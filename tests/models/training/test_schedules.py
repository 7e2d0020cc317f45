from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emi_models.training.recipe import Constant, Cosine, Plateau, Restarts

steps = st.integers(1, 200)
epochs = st.integers(1, 60)


@given(steps, epochs, st.integers(0, 3))
def test_a_cosine_rises_over_its_warm_up_and_falls_to_nothing(per_epoch: int, count: int, warm: int) -> None:
    rates = [Cosine(warm).factor(step, per_epoch, count) for step in range(per_epoch * count)]
    rise = min(warm, count) * per_epoch
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:rise] == sorted(rates[:rise])
    assert rates[rise:] == sorted(rates[rise:], reverse=True)
    assert max(rates) == pytest.approx(1.0)
    if rise < len(rates):
        assert Cosine(warm).factor(per_epoch * count, per_epoch, count) == pytest.approx(0.0, abs=1e-12)


def test_the_warm_up_of_taemi_is_one_epoch_step_by_step() -> None:
    rates = [Cosine(1).factor(step, 4, 3) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)


@given(steps, st.integers(1, 20), st.integers(0, 5), st.floats(0.001, 0.5))
def test_restarts_repeat_every_cycle_between_one_and_the_floor(
    per_epoch: int, cycle: int, turn: int, floor: float
) -> None:
    schedule, length = Restarts(cycle, floor), cycle * per_epoch
    first = [schedule.factor(step, per_epoch, 50) for step in range(length)]
    assert [schedule.factor(turn * length + step, per_epoch, 50) for step in range(length)] == first
    assert first[0] == 1.0
    assert first == sorted(first, reverse=True)
    assert floor < first[-1] or length == 1


def test_the_papers_restarts_go_from_1e_5_towards_1e_7() -> None:
    schedule = Restarts(cycle=10, floor=1e-7 / 1e-5)
    rates = [1e-5 * schedule.factor(step, 100, 50) for step in range(1000)]
    t = 500 / 1000
    assert rates[500] == pytest.approx(1e-7 + 0.5 * (1e-5 - 1e-7) * (1 + math.cos(t * math.pi)))  # Eq. 9
    assert rates[-1] == pytest.approx(1e-7, rel=0.01)


def test_a_plateau_does_nothing_by_itself() -> None:
    assert Plateau(0.5, 3).factor(7, 10, 5) == Constant().factor(7, 10, 5) == 1.0
