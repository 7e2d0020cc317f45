"""What to give up when recognition cannot keep up: first haste, then the large model, then the words."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["LagController", "LagStep"]

STRIKES: Final = 3  # late answers, all but in a row, or seconds of no headway, before a step is taken
HEADWAY_S: Final = 0.5  # by which waiting sound must shrink with each second taken in, beyond the budget
FORGIVING_S: Final = 30.0  # without a late answer, before the large model is tried again
REST_S: Final = 10.0  # without words, before they are tried again
LONGEST: Final = 16  # both are doubled with every failure, up to so many times their length
FORGETTING_S: Final = 300.0  # of the large model in time, after which failures are forgotten
IN_TIME: Final = 1 / 3  # of the budget


class LagStep(IntEnum):
    """How far recognition has been reduced."""

    NONE = 0  # every hypothesis is asked for; when sound waits, it is first taken in (coalesced)
    SMALLER = 1  # the smaller model answers
    MISSING = 2  # nothing is recognised; the text goes missing


class LagController:
    """Decides, from how much sound waits after each answer, what to give up and when to try again. Pure.

    Coalescing is no step: a stage that is behind takes in all the sound that waits before it asks for words,
    so that its questions get rarer just as its answers get slower. That holds the lag at the length of one
    answer. This controller acts when that alone is beyond the budget.
    """

    def __init__(self, budget_s: float, *, has_smaller: bool) -> None:
        """Allow `budget_s` of waiting sound; `has_smaller`: there is a smaller model."""
        self._budget_s = budget_s
        self._has_smaller = has_smaller
        self.step = LagStep.NONE
        self._strikes = 0
        self._taken_s = 0.0  # since the two below were last looked at
        self._waited_s = 0.0  # how much sound waited then
        self._calm_s = 0.0  # since the last late answer
        self._rested_s = 0.0  # since the words went missing
        self._shrunk = 0  # times
        self._missed = 0  # times

    def answered(self, waiting_s: float) -> LagStep:
        """An answer has come, and so much sound waits now; the step from here on."""
        self._taken_s, self._waited_s = 0.0, waiting_s
        if waiting_s > self._budget_s:
            self._strike()
        elif waiting_s <= self._budget_s * IN_TIME:
            self._strikes = max(0, self._strikes - 1)
        return self.step

    def taken(self, seconds: float, waiting_s: float) -> LagStep:
        """So much sound has been taken in, and so much waits now; the step from here on.

        It counts against a recogniser that is slow at taking in sound, rather than at answering, when what
        waits is beyond the budget and hardly gets less.
        """
        self._taken_s += seconds
        if self._taken_s >= 1.0:
            if waiting_s > self._budget_s and waiting_s > self._waited_s - HEADWAY_S * self._taken_s:
                self._strike()
            self._taken_s, self._waited_s = 0.0, waiting_s
        return self.step

    def _strike(self) -> None:
        self._strikes += 1
        self._calm_s = 0.0
        if self._strikes >= STRIKES:
            self._strikes = 0
            if self.step == LagStep.NONE and self._has_smaller:
                self.step = LagStep.SMALLER
                self._shrunk += 1
            else:
                self.step = LagStep.MISSING
                self._missed += 1
                self._rested_s = 0.0

    def passed(self, seconds: float) -> LagStep:
        """So much time has passed, by the sound taken in, silence too; the step from here on."""
        if self.step == LagStep.MISSING:
            self._rested_s += seconds
            if self._rested_s >= _doubled(REST_S, self._missed):
                self.step = LagStep.SMALLER if self._has_smaller else LagStep.NONE
                self._calm_s = 0.0
            return self.step
        self._calm_s += seconds
        if self.step == LagStep.SMALLER and self._calm_s >= _doubled(FORGIVING_S, self._shrunk):
            self.step = LagStep.NONE
            self._calm_s = 0.0
        if self.step == LagStep.NONE and self._calm_s >= FORGETTING_S:
            self._shrunk = self._missed = 0
        return self.step


def _doubled(seconds: float, failures: int) -> float:
    return float(seconds * min(2 ** max(0, failures - 1), LONGEST))
