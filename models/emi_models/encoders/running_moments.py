"""Mean and variance of a stream over its last few spans."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RunningMoments"]


class RunningMoments:
    """Mean and variance of each channel over the last `spans` arrays that were added.

    Each span is kept as count, mean and sum of squared deviations, in double precision, and all are put
    together whenever they are asked for (Chan, Golub & LeVeque 1983): no error builds up, and a loud span
    leaves nothing behind once it has left.
    """

    def __init__(self, spans: int) -> None:
        self._spans: deque[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = deque(maxlen=spans)

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in one span, shape (channels, n); an empty one changes nothing."""
        if values.shape[1] == 0:
            return
        exact = values.astype(np.float64)
        mean = exact.mean(axis=1)
        self._spans.append((values.shape[1], mean, np.square(exact - mean[:, None]).sum(axis=1)))

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance (over n, not n - 1), each (channels,); something must have been added."""
        counts = np.array([count for count, _, _ in self._spans], np.float64)[:, None]
        means = np.stack([mean for _, mean, _ in self._spans])
        within = np.stack([squares for _, _, squares in self._spans])
        total = counts.sum()
        mean = (counts * means).sum(axis=0) / total
        between = counts * np.square(means - mean)
        return mean, (within + between).sum(axis=0) / total
