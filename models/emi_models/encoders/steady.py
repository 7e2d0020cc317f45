"""Keeps a face's square from trembling: a still face stays in its place, a moving one is followed at once."""

from __future__ import annotations

import math
from typing import Final

from emi_models.encoders.face_crop import FaceSquare
from emi_models.encoders.follow import SAME_FACE_IOU, Box

__all__ = ["SteadySquare"]

# Cut-off frequencies in Hz. The speed's weight: a place that moves is behind by 1 / (2 pi 8) = 0.02 sides at
# most, 4 px of a crop of 224.
STILL_HZ: Final = 0.7
HZ_PER_SIDE: Final = 8.0  # more for each side (or radian, or e-fold of the side) a second
SPEED_HZ: Final = 1.0  # of the speed itself
NS_PER_S: Final = 1_000_000_000


class OneEuro:
    """A low-pass filter whose cut-off frequency grows with the speed of what it follows.

    Several values share one cut-off, that of their speed together.

    Source: Casiez, Roussel, Vogel 2012, 1 € Filter, CHI, doi:10.1145/2207676.2208639.
    """

    def __init__(self, *values: float) -> None:
        """Start at these values, at rest."""
        self.values = values
        self._speeds = (0.0,) * len(values)

    def push(self, values: tuple[float, ...], seconds: float, unit: float = 1.0) -> tuple[float, ...]:
        """The filtered values.

        Args:
            values: the next ones.
            seconds: since those before; greater than 0.
            unit: what counts as 1 in a speed.
        """
        share = _share(SPEED_HZ, seconds)
        moved = zip(values, self.values, self._speeds, strict=True)
        self._speeds = tuple(
            speed + share * ((new - old) / (unit * seconds) - speed) for new, old, speed in moved
        )
        share = _share(STILL_HZ + HZ_PER_SIDE * math.hypot(*self._speeds), seconds)
        self.values = tuple(old + share * (new - old) for new, old in zip(values, self.values, strict=True))
        return self.values


class SteadySquare:
    """Smooths the squares of one face, each captured later than the one before.

    A square that has too little in common with the one before is another face's: it is taken as it is.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next square is taken as it is, as when a face is found again."""
        self._last: tuple[FaceSquare, int] | None = None  # as it came, and when

    def push(self, square: FaceSquare, t_ns: int) -> FaceSquare:
        """The smoothed square of the picture captured at `t_ns`."""
        last, self._last = self._last, (square, t_ns)
        if last is None or t_ns <= last[1] or _box(square).iou(_box(last[0])) < SAME_FACE_IOU:
            self._place = OneEuro(square.x, square.y)
            self._size = OneEuro(math.log(square.side))
            self._angle = OneEuro(square.angle)
            return square
        seconds = (t_ns - last[1]) / NS_PER_S
        x, y = self._place.push((square.x, square.y), seconds, square.side)
        (size,) = self._size.push((math.log(square.side),), seconds)
        turned = math.remainder(square.angle - self._angle.values[0], math.tau)  # the shorter way round
        (angle,) = self._angle.push((self._angle.values[0] + turned,), seconds)
        return FaceSquare(x, y, math.exp(size), angle)


def _share(cutoff_hz: float, seconds: float) -> float:
    """The new value's share in a filter of first order."""
    return 1 / (1 + 1 / (math.tau * cutoff_hz * seconds))


def _box(square: FaceSquare) -> Box:
    half = square.side / 2
    return Box(square.x - half, square.y - half, square.x + half, square.y + half)
