"""Matrix products of a few rows, cut into pieces that numpy's BLAS multiplies as they lie.

OpenBLAS copies an operand into panels before it multiplies, unless the product is small; with ten rows the
copying is most of the work. In pieces of less than a million multiplications it is left out
(docs/decisions/0011). Results differ from the whole product's in the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["Linear", "scores_of", "weighted_sum"]

COLUMNS: Final = 32  # of a layer's weight in one piece
PIECE: Final = 256  # frames, or columns of frames, in one piece


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A layer: x (n, in) to (n, out); the weight is in pieces of some columns, (pieces, in, columns)."""

    pieces: Floats
    bias: Floats  # (out,)

    @classmethod
    def of(cls, weight: Floats, bias: Floats) -> Linear:
        """The layer x @ weight + bias, from a weight (in, out)."""
        inside, out = weight.shape
        columns = COLUMNS if out % COLUMNS == 0 else out
        pieces = weight.reshape(inside, out // columns, columns).transpose(1, 0, 2)
        return cls(np.ascontiguousarray(pieces), bias)

    def __call__(self, x: Floats) -> Floats:
        """The layer's output, a fresh array."""
        out: Floats = (x @ self.pieces).transpose(1, 0, 2).reshape(len(x), -1)
        out += self.bias
        return out


def scores_of(queries: Floats, frames: Floats) -> Floats:
    """Queries (Q, D) times frames (T, D): (Q, T)."""
    scores = np.empty((len(queries), len(frames)), np.float32)
    for start in range(0, len(frames), PIECE):
        piece = slice(start, start + PIECE)
        np.matmul(queries, frames[piece].T, out=scores[:, piece])
    return scores


def weighted_sum(weights: Floats, frames: Floats) -> Floats:
    """Weights (Q, T) times frames (T, D): (Q, D)."""
    found = np.empty((len(weights), frames.shape[1]), np.float32)
    for start in range(0, frames.shape[1], PIECE):
        piece = slice(start, start + PIECE)
        np.matmul(weights, frames[:, piece], out=found[:, piece])
    return found
