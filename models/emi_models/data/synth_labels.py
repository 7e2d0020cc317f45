"""Ratings with the statistics that are published of Hume-Vidmimic2: means, zero inflation, one correlation.

Source of the numbers: the statistics of its clips that the two-stage system's authors publish. An intensity
is 0 with the published chance; else it lies above the smallest step of a rating, the smaller the more often:
`STEP + (1 - STEP) B`, B ~ Beta(1, b), with b from the published mean. A Gaussian copula correlates excitement
with joy; all other pairs are independent (published: every |r| <= 0.143).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EXCITEMENT_JOY",
    "MEANS",
    "STEP",
    "ZEROS",
    "draw_intensities",
    "rate",
    "standardised",
]

MEANS: Final = np.array([0.1785, 0.1253, 0.0967, 0.0214, 0.1420, 0.1157])  # order of EMOTIONS
ZEROS: Final = np.array([0.553, 0.636, 0.675, 0.899, 0.618, 0.675])  # share of clips that are rated 0
EXCITEMENT_JOY: Final = 0.229  # correlation of the ratings
STEP: Final = 0.05  # a rating is a mean over people: a multiple of 1/20
# Correlation of the two Gaussians from which EXCITEMENT_JOY results after zero inflation and rounding.
_COPULA: Final = 0.320

_GIVEN_SEEN: Final = (MEANS / (1 - ZEROS) - STEP) / (1 - STEP)  # mean of B
_SHAPE: Final = 1 / _GIVEN_SEEN - 1  # b
_SQUARE: Final = 2 / ((1 + _SHAPE) * (2 + _SHAPE))  # mean of B²
_SD: Final = np.sqrt(
    (1 - ZEROS) * (STEP**2 + 2 * STEP * (1 - STEP) * _GIVEN_SEEN + (1 - STEP) ** 2 * _SQUARE) - MEANS**2
)


def draw_intensities(random: np.random.Generator) -> NDArray[np.float64]:
    """Latent intensities (6,), each 0 or in [STEP, 1)."""
    normal = random.standard_normal(6)
    normal[5] = _COPULA * normal[4] + math.sqrt(1 - _COPULA**2) * normal[5]
    uniform = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in normal])
    seen = np.clip((uniform - ZEROS) / (1 - ZEROS), 0.0, None)
    size = 1 - (1 - seen) ** (1 / _SHAPE)  # the quantile function of Beta(1, b)
    return np.where(uniform > ZEROS, STEP + (1 - STEP) * size, 0.0)


def rate(intensities: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """The ratings (6,) that such intensities get: multiples of STEP, right in the mean, 0 only for 0."""
    steps = intensities / STEP
    whole = np.floor(steps + 1e-9)
    up = random.random(6) < steps - whole
    return np.asarray((whole + up) * STEP, np.float32)


def standardised(intensities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intensities (6,) less their mean, over their standard deviation."""
    return np.asarray((intensities - MEANS) / _SD)
