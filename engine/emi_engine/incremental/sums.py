"""Softmax attention of all frames of a sliding window to each other, as sums that keys enter and leave.

For query i and the keys j in the window, `total` = sum exp(s_ij - top_i) and `mixed` = sum exp(s_ij - top_i)
v_j; the attention's output is their quotient. A key that comes adds its term and one that goes subtracts it,
T x n work in place of T x T. The reference `top_i` is the largest score when row i was last computed whole.

Subtraction loses digits, so a row is computed whole again when a score rises far above its reference, when
most of its sum has gone, or after some updates. What rounding is left: docs/decisions/0011.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_engine.incremental.rows import Rows

__all__ = ["RunningSums"]

HIGHEST: Final = 8.0  # a score so far above the reference: its term is e^8 of the one that was the largest
REMAINS: Final = 0.5  # less than that of the largest sum since the row was whole: a bit is lost
UPDATES: Final = 128  # after so many, whole again; at 0.2 s hops a frame leaves the window after 60
WHOLE: Final = 0.5  # with so many keys coming and going, as a share of the window, all rows are made whole


class RunningSums:
    """The sums of all frames in `rows`, for `heads` heads of `width` numbers.

    `query`, `value`, `mixed` are (heads, rows, width), `key` (heads, width, rows), `total` (heads, rows, 1);
    queries are scaled.
    """

    def __init__(self, rows: Rows, heads: int, width: int, *, running: bool = True) -> None:
        """With `running` off, every row is computed whole at each slide: the plain attention."""
        self._rows = rows
        self._running = running
        self.query, self.value, self.mixed = (rows.array(heads, width) for _ in range(3))
        self.key = rows.columns(heads, width)
        self.total = rows.array(heads, 1)
        self._top = rows.array(heads, 1)
        self._largest = rows.array(heads, 1)  # that `total` has been since the row was whole
        self._updates = rows.array(1)
        self.whole = 0  # rows that were computed whole so far, new ones included

    def slide(self, start: int, fresh: int) -> None:
        """The window is now frames [start, rows.stop), of which those from `fresh` on are new.

        `query`, `key` and `value` of the new frames are set, and frames before `start` are still in `rows`.
        """
        rows = self._rows
        gone, kept, new = rows.at(rows.start, start), rows.at(start, fresh), rows.at(fresh, rows.stop)
        window = rows.at(start, rows.stop)
        changing, staying = _count(gone) + _count(new), _count(kept)
        if not changing or not _count(window):
            return
        if not self._running or changing > WHOLE * staying:
            self._compute(window, window)
        else:
            stale = self._exchange(kept, gone, new)
            self._updates[:, kept] += 1.0
            stale |= self._updates[0, kept] > UPDATES
            self._compute(new, window)
            if stale.any():
                self._compute(kept.start + np.flatnonzero(stale), window)

    def _exchange(self, rows: slice, gone: slice, new: slice) -> NDArray[np.bool_]:
        """Take the terms of keys away and add those of others; which rows this was too much for."""
        went, came = _count(gone), _count(new)
        keys = np.concatenate((self.key[:, :, gone], self.key[:, :, new]), axis=2)
        # The sign goes with the values: numpy 2.4 negates some strided slices wrongly in place.
        values = np.concatenate((-self.value[:, gone], self.value[:, new]), axis=1)
        total, largest = self.total[:, rows], self._largest[:, rows]
        scores: NDArray[np.float32] = self.query[:, rows] @ keys  # (heads, rows, keys)
        scores -= self._top[:, rows]
        stale = np.zeros(_count(rows), np.bool_)
        if scores.max() > HIGHEST:  # no more than a look where, as nearly always, there is none
            stale |= (scores > HIGHEST).any(axis=(0, 2))
            np.minimum(scores, HIGHEST, out=scores)
        terms = np.exp(scores, out=scores)
        going = np.repeat(np.array([[1], [0]], np.float32), (went, came), axis=0)  # (keys, 1)
        total += terms @ (1 - going)
        np.maximum(largest, total, out=largest)
        total -= terms @ going
        self.mixed[:, rows] += terms @ values
        stale |= (total < REMAINS * largest).any(axis=(0, 2))
        return stale

    def _compute(self, rows: slice | NDArray[np.intp], window: slice) -> None:
        """The sums of these rows over all keys of the window, from nothing."""
        scores = self.query[:, rows] @ self.key[:, :, window]
        top = scores.max(axis=2, keepdims=True)
        scores -= top
        terms = np.exp(scores, out=scores)
        total = terms.sum(axis=2, keepdims=True)
        self._top[:, rows], self.total[:, rows], self._largest[:, rows] = top, total, total
        self.mixed[:, rows] = terms @ self.value[:, window]
        self._updates[:, rows] = 0.0
        self.whole += scores.shape[1]


def _count(rows: slice) -> int:
    return int(rows.stop - rows.start)
