"""Learning rates over a stage: each schedule gives the share of the stage's own rate at an optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Constant", "Cosine", "Plateau", "Restarts", "Schedule"]


@dataclass(frozen=True, slots=True)
class Constant:
    """The stage's own rate throughout."""

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """1 at every step."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Cosine:
    """A linear rise from nearly 0 over `warm_up` epochs, then half a cosine down to 0 at the last step."""

    warm_up: int = 0

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """The share, in (0, 1], at optimiser step `step` of `epochs` x `epoch_steps`, counted from 0."""
        rise = min(self.warm_up, epochs) * epoch_steps
        if step < rise:
            return (step + 1) / rise
        fall = epochs * epoch_steps - rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, fall))))


@dataclass(frozen=True, slots=True)
class Restarts:
    """Cosine annealing with warm restarts (SGDR, Loshchilov & Hutter 2017), step by step.

    Every `cycle` epochs the rate falls from 1 towards `floor`, both shares of the stage's rate, then starts
    anew; the optimiser's momentum is kept.
    """

    cycle: int
    floor: float

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """The share, in (floor, 1], at optimiser step `step`, counted from 0."""
        length = self.cycle * epoch_steps
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * (step % length) / length))


@dataclass(frozen=True, slots=True)
class Plateau:
    """The rate times `by` whenever the validation score has not risen for more than `patience` epochs.

    What it does hangs on scores, so that the training task keeps its state; step by step it changes nothing.
    """

    by: float
    patience: int

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """1 at every step."""
        return 1.0


Schedule = Constant | Cosine | Restarts | Plateau
