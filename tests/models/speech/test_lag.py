from __future__ import annotations

import pytest

from emi_models.speech.incremental import LagController, LagStep

BUDGET_S = 3.0
LATE_S, IN_TIME_S = 3.1, 0.5


def late(lag: LagController, times: int) -> LagStep:
    for _ in range(times):
        lag.answered(LATE_S)
    return lag.step


def test_one_late_answer_is_no_reason() -> None:
    lag = LagController(BUDGET_S, has_smaller=True)
    for _ in range(20):
        lag.answered(LATE_S)
        lag.answered(IN_TIME_S)
    assert lag.step == LagStep.NONE


def test_first_the_model_shrinks_then_the_text_goes_missing() -> None:
    lag = LagController(BUDGET_S, has_smaller=True)
    assert late(lag, 3) == LagStep.SMALLER
    assert late(lag, 3) == LagStep.MISSING


def test_without_a_smaller_model_the_text_goes_missing() -> None:
    assert late(LagController(BUDGET_S, has_smaller=False), 3) == LagStep.MISSING


def test_in_time_for_long_the_large_model_comes_back() -> None:
    lag = LagController(BUDGET_S, has_smaller=True)
    late(lag, 3)
    assert lag.passed(29.0) == LagStep.SMALLER
    assert lag.passed(1.5) == LagStep.NONE


def test_a_large_model_that_fails_again_is_tried_ever_more_seldom() -> None:
    lag = LagController(BUDGET_S, has_smaller=True)
    calm = []
    for _ in range(6):
        late(lag, 3)
        seconds = 0
        while lag.passed(1.0) == LagStep.SMALLER:
            seconds += 1
        calm.append(seconds + 1)
    assert calm == [30, 60, 120, 240, 480, 480]


@pytest.mark.parametrize(("has_smaller", "tried"), [(True, LagStep.SMALLER), (False, LagStep.NONE)])
def test_missing_words_are_tried_again_ever_more_seldom(has_smaller: bool, tried: LagStep) -> None:
    lag = LagController(BUDGET_S, has_smaller=has_smaller)
    rests = []
    for _ in range(7):
        while lag.step != LagStep.MISSING:
            late(lag, 3)
        rest = 0
        while lag.passed(1.0) == LagStep.MISSING:
            rest += 1
        rests.append(rest + 1)
        assert lag.step == tried
    assert rests == [10, 20, 40, 80, 160, 160, 160]


def test_failures_are_forgotten_after_long_calm() -> None:
    lag = LagController(BUDGET_S, has_smaller=False)
    rests = []
    for calm_s in (60, 400, 0):
        late(lag, 3)
        rest = 0
        while lag.passed(1.0) == LagStep.MISSING:
            rest += 1
        rests.append(rest + 1)
        lag.passed(float(calm_s))
    assert rests == [10, 20, 10]


def test_one_that_is_slow_at_taking_in_sound_is_late_without_answering() -> None:
    lag = LagController(BUDGET_S, has_smaller=False)
    for second in range(8):
        lag.taken(1.0, 3.5 + 0.1 * second)
    assert lag.step == LagStep.MISSING


def test_sound_that_piled_up_once_is_taken_in_without_a_step() -> None:
    lag = LagController(BUDGET_S, has_smaller=False)
    for waiting_s in (10.0, 9.1, 8.2, 7.2, 6.3, 5.4, 4.5, 3.6, 2.7):
        lag.taken(1.0, waiting_s)
    assert lag.step == LagStep.NONE
