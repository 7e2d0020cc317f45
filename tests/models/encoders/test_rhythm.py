"""Rhythm: notes that repeat four to eight times a second are heard, others are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_models.encoders.rhythm import LONGEST_PERIOD, Rhythm


def heard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rhythm = Rhythm(1, 0.005)
    return np.array([rhythm.push(value) for value in values[:, None]])


def notes(period: int, frames: int = 150) -> NDArray[np.float64]:
    """1 in the first half of each period."""
    return (np.arange(frames) % period < period / 2).astype(float)


@pytest.mark.parametrize("period", range(6, LONGEST_PERIOD + 1))
def test_notes_that_repeat_are_a_rhythm(period: int) -> None:
    assert heard(notes(period))[50:].min() > 0.9


@pytest.mark.parametrize("period", [30, 40])
def test_slow_notes_are_none(period: int) -> None:
    assert heard(notes(period)).mean() < 0.1


def test_irregular_notes_are_less_of_one() -> None:
    """Six notes a second on average, each as likely at any time."""
    rng = np.random.default_rng(0)
    made = np.concatenate([notes(int(n), int(n)) for n in rng.integers(4, 13, 100)])
    assert heard(made)[50:].mean() < 0.7


def test_a_constant_a_glide_and_the_start_are_none() -> None:
    assert not heard(np.ones(100)).any()
    assert not heard(np.linspace(0, 5, 100)).any()
    assert not heard(notes(8))[:LONGEST_PERIOD].any()


def test_a_gain_and_a_colour_change_nothing() -> None:
    """Of values far above the floor; in decibels, a gain is a constant."""
    made = np.random.default_rng(1).normal(size=(100, 4)) * 10
    one, other = Rhythm(4, 0.005), Rhythm(4, 0.005)
    colour = np.array([3.0, -2.0, 0.5, 40.0])
    np.testing.assert_allclose([one.push(f) for f in made], [other.push(f + colour) for f in made], atol=1e-9)


def test_a_reset_forgets() -> None:
    rhythm = Rhythm(1, 0.005)
    values = notes(9)[:, None]
    before = [rhythm.push(value) for value in values]
    rhythm.reset()
    assert [rhythm.push(value) for value in values] == before
