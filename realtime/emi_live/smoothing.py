"""Smoothing of the intensities that are shown: an exponential filter over capture time.

On the test clips it has less flicker at the same lag than a One-Euro filter, which follows the jumps that
new words make (docs/decisions/0034).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from emi_live.clock import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Smoother"]

FORGET_S: Final = 3.0  # without a value for longer, the filter starts again


class Smoother:
    """Smooths the six intensities of one stream."""

    def __init__(self, smooth_s: float) -> None:
        """Smooth with a time constant of `smooth_s` seconds; 0: not at all."""
        self._smooth_s = smooth_s
        self._last: tuple[int, NDArray[np.float64]] | None = None

    def reset(self) -> None:
        """Start again with the next values."""
        self._last = None

    def push(self, values: NDArray[np.float64], t_ns: int) -> NDArray[np.float64]:
        """The smoothed values (6,) at `t_ns`; times must grow."""
        if self._smooth_s == 0:
            return values
        if self._last is not None:
            at_ns, shown = self._last
            step_s = (t_ns - at_ns) / NS_PER_S
            if 0 < step_s <= FORGET_S:
                values = values + math.exp(-step_s / self._smooth_s) * (shown - values)
        self._last = t_ns, values
        return values
