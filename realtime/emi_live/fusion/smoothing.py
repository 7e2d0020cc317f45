"""Smoothing of the intensities that are shown: a One-Euro filter (Casiez, Roussel and Vogel 2012).

A value at rest is smoothed over S seconds; a value that moves fast is smoothed less, so that it is hardly
late. Times are capture times.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_live.clock import NS_PER_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OneEuro"]

SPEED_S: Final = 0.3  # over which the speed itself is smoothed
HZ_PER_SPEED: Final = 2.0  # cut-off that is added for a speed of 1 (from 0 to 1) a second
FORGET_S: Final = 3.0  # without a value for longer, the filter starts again


class OneEuro:
    """Smooths the six intensities of one stream."""

    def __init__(self, smooth_s: float) -> None:
        """Smooth a value at rest over `smooth_s` seconds (the time constant); 0: not at all."""
        self._smooth_s = smooth_s
        self._at_ns: int | None = None
        self._raw = self._shown = self._speed = np.zeros(0)

    def push(self, values: NDArray[np.float64], t_ns: int) -> NDArray[np.float64]:
        """The smoothed values (6,) at `t_ns`; times must grow."""
        if self._smooth_s == 0:
            return values
        step_s = None if self._at_ns is None else (t_ns - self._at_ns) / NS_PER_S
        if step_s is None or not 0 < step_s <= FORGET_S:
            self._raw = self._shown = values
            self._speed = np.zeros_like(values)
        else:
            speed = (values - self._raw) / step_s
            self._speed = self._speed + _share(np.full_like(speed, 1 / SPEED_S), step_s) * (
                speed - self._speed
            )
            turns = 1 / self._smooth_s + math.tau * HZ_PER_SPEED * np.abs(self._speed)
            self._shown = self._shown + _share(turns, step_s) * (values - self._shown)
            self._raw = values
        self._at_ns = t_ns
        return self._shown


def _share(turns: NDArray[np.float64], step_s: float) -> NDArray[np.float64]:
    """What part of a new value a low-pass filter takes; `turns` is its cut-off in radians a second."""
    share: NDArray[np.float64] = 1 - np.exp(-turns * step_s)
    return share
