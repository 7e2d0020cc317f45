"""Attention over a sliding window in numpy, and a TAEMI's weights in the form that it uses.

`RunningSums` is the softmax attention of all frames of a window to each other, stored as sums. Keys enter and
leave them. For query i and the keys j in the window, `total` = sum exp(s_ij - top_i) and
`mixed` = sum exp(s_ij - top_i) v_j; the attention's output is mixed / total. A key that enters adds its
term and one that leaves subtracts it: T x n work instead of T x T. The reference `top_i` is the largest score
when row i was last computed completely.

Subtraction loses digits. So a row is computed completely again when a score rises far above its reference,
when most of its sum was removed, or after some updates. The rounding error: docs/decisions/0011.

`Linear` cuts matrix products of a few rows into pieces that numpy's BLAS multiplies without copying them.
OpenBLAS copies an operand into panels before it multiplies, unless the product is small; with ten rows the
copying is most of the work. For pieces of less than a million multiplications it does not copy
(docs/decisions/0011). Results differ in the last bits from those of the whole product.

`Rows` stores the results of each frame in a sliding window, addressed by the frame's number.
`SequenceWeights` has one modality's weights, for rows on the left, with constants folded in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from torch import nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_models.networks.base import Attention
    from emi_models.networks.taemi import FrameSequence

    Floats = NDArray[np.float32]

__all__ = [
    "Across",
    "Linear",
    "Rows",
    "RunningSums",
    "SequenceWeights",
    "Within",
    "linear",
    "scores_of",
    "weighted_sum",
]

HIGHEST: Final = 8.0  # how far a score may rise above the reference, as an exponent of e
REMAINS: Final = 0.5  # if less than this share of the largest sum since then is left, a bit is lost
UPDATES: Final = 128  # then a row is computed again; at 0.2 s hops a frame stays for 60 updates
WHOLE: Final = 0.5  # if more keys enter and leave than this share of the window, all rows are computed again


class RunningSums:
    """The sums of all frames in `rows`, for `heads` heads of `width` numbers.

    `query`, `value`, `mixed` are (heads, rows, width), `key` (heads, width, rows), `total` (heads, rows, 1);
    queries are scaled.
    """

    def __init__(self, rows: Rows, heads: int, width: int, *, running: bool = True) -> None:
        """With `running` False, every row is computed completely at each slide: plain attention."""
        self._rows = rows
        self._running = running
        self.query, self.value, self.mixed = (rows.array(heads, width) for _ in range(3))
        self.key = rows.columns(heads, width)
        self.total = rows.array(heads, 1)
        self._top = rows.array(heads, 1)
        self._largest = rows.array(heads, 1)  # largest `total` since the row was computed completely
        self._updates = rows.array(1)
        self.whole = 0  # rows computed completely so far, including new ones

    def slide(self, start: int, fresh: int) -> None:
        """Move the window to frames [start, rows.stop); those from `fresh` on are new.

        `query`, `key` and `value` of the new frames must be set; frames before `start` must be in `rows`.
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
        """Subtract the terms of some keys, add those of others; return the rows to compute again."""
        went, came = _count(gone), _count(new)
        keys = np.concatenate((self.key[:, :, gone], self.key[:, :, new]), axis=2)
        # The sign is put into the values: numpy 2.4 negates some strided slices wrongly in place.
        values = np.concatenate((-self.value[:, gone], self.value[:, new]), axis=1)
        total, largest = self.total[:, rows], self._largest[:, rows]
        scores: NDArray[np.float32] = self.query[:, rows] @ keys  # (heads, rows, keys)
        scores -= self._top[:, rows]
        stale = np.zeros(_count(rows), np.bool_)
        if scores.max() > HIGHEST:  # only this test if there is none, as nearly always
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
        """Compute the sums of these rows over all keys of the window."""
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


COLUMNS: Final = 32  # columns of a layer's weight in one piece
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
        """The layer's output, a new array."""
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


SPARE: Final = 4  # times a window: rows are moved back to the front once in three windows


class Rows:
    """Several arrays that share one axis: a row for each frame, contiguous, in order.

    The used rows move along the memory, so that a range of frames is always a plain slice. The arrays are
    never reallocated, and rarely moved.
    """

    def __init__(self, capacity: int) -> None:
        """Allocate memory for a window of `capacity` frames."""
        self._size = max(SPARE * capacity, capacity + 16)
        self._arrays: list[NDArray[np.float32]] = []  # views with the frame axis first
        self._offset = 0  # the row of frame number `start`
        self.start = 0  # the oldest frame's number
        self.stop = 0  # one past the newest frame's

    def array(self, planes: int, *width: int) -> NDArray[np.float32]:
        """A new array (planes, rows, *width) of zeros; called before the first frame."""
        made = np.zeros((planes, self._size, *width), np.float32)
        self._arrays.append(np.moveaxis(made, 1, 0))
        return made

    def columns(self, planes: int, height: int) -> NDArray[np.float32]:
        """A new array (planes, height, rows) of zeros, a column for each frame; made as `array` is."""
        made = np.zeros((planes, height, self._size), np.float32)
        self._arrays.append(np.moveaxis(made, 2, 0))
        return made

    def at(self, start: int, stop: int) -> slice:
        """The rows of frames [start, stop)."""
        first = self._offset - self.start
        return slice(first + start, first + stop)

    def grow(self, stop: int) -> None:
        """Make room up to frame `stop`, exclusive; earlier slices are invalid afterwards."""
        count = self.stop - self.start
        if self._offset + stop - self.start > self._size:
            used = slice(self._offset, self._offset + count)
            for values in self._arrays:
                values[:count] = values[used].copy()
            self._offset = 0
        self.stop = stop

    def shrink(self, start: int) -> None:
        """Forget the frames before `start`."""
        self._offset += start - self.start
        self.start = start

    def restart(self, start: int) -> None:
        """Forget all frames; the next one has the number `start`."""
        self._offset, self.start, self.stop = 0, start, start


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """A sequence's self-attention; pre-norm and scale are folded into query, key and value."""

    epsilon: float  # of the norm
    qkv: Linear  # normalised (n, D) to (n, 3 D): query, scaled; key; value
    out: Linear
    onto: Linear  # u (n, D) to O^T u: `out` applied to a query

    def normalised(self, x: Floats) -> Floats:
        """Rows (n, D) with mean 0 and variance 1."""
        centred: Floats = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        centred /= np.sqrt(variance + self.epsilon)
        return centred


@dataclass(frozen=True, slots=True, eq=False)
class Across:
    """A cross-attention of single queries; its key and value projections are applied to the query.

    A score is q_h . (K_h y + b) = (K_h^T q_h) . y + const; softmax ignores terms equal for all frames.
    A head's output is V_h (sum of weighted y) + b, because weights sum to one.
    """

    query: Linear  # scaled
    key: Floats  # (heads, width, D): K_h
    value: Floats  # (heads, D, width): V_h transposed
    value_bias: Floats  # (heads, 1, width)
    out: Linear

    @property
    def heads(self) -> int:
        """How many heads."""
        return len(self.key)


@dataclass(frozen=True, slots=True, eq=False)
class SequenceWeights:
    """One modality's weights: `within` and `across` are None in variants of the network without them."""

    heads: int
    stand_in: Floats  # (1, dim): the missing token, or zeros
    trained: bool
    project: Linear
    within: Within | None
    across: Across | None

    @classmethod
    def of(cls, frames: FrameSequence, dim: int, heads: int) -> SequenceWeights:
        """The weights of a network's module, for frames of `dim` numbers."""
        stand_in = np.zeros(dim, np.float32)
        if frames.has_token:
            stand_in = frames.token.detach().numpy()
        across = getattr(frames, "across", None)
        return cls(
            heads=heads,
            stand_in=stand_in[None],
            trained=frames.trained,
            project=linear(frames.project),
            within=_within(frames.norm, frames.within) if frames.attends else None,
            across=None if across is None else _across(across),
        )


def linear(layer: nn.Module, scale: float = 1.0) -> Linear:
    """A linear layer's weights, times a factor."""
    assert isinstance(layer, nn.Linear)  # noqa: S101  # parts of a Sequential are plain modules to a type checker
    weight, bias = (x.detach().numpy() * np.float32(scale) for x in (layer.weight, layer.bias))
    return Linear.of(weight.T, bias)


def _within(norm: nn.LayerNorm, attention: Attention) -> Within:
    gain, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    scale = np.float32(_scale(attention))
    weights = [attention.query.weight, attention.key.weight, attention.value.weight]
    biases = [attention.query.bias, attention.key.bias, attention.value.bias]
    weight = np.concatenate([x.detach().numpy().T for x in weights], axis=1)
    bias = np.concatenate([x.detach().numpy() for x in biases])
    weight[:, : len(gain)] *= scale
    bias[: len(gain)] *= scale
    back = attention.out.weight.detach().numpy()
    return Within(
        epsilon=norm.eps,
        qkv=Linear.of(gain[:, None] * weight, shift @ weight + bias),
        out=linear(attention.out),
        onto=Linear.of(back, np.zeros(len(back), np.float32)),
    )


def _across(attention: Attention) -> Across:
    heads = attention.heads
    d_model = attention.key.in_features
    key = attention.key.weight.detach().numpy().reshape(heads, -1, d_model)
    value = attention.value.weight.detach().numpy().reshape(heads, -1, d_model)
    return Across(
        query=linear(attention.query, _scale(attention)),
        key=np.ascontiguousarray(key),
        value=np.ascontiguousarray(value.transpose(0, 2, 1)),
        value_bias=attention.value.bias.detach().numpy().reshape(heads, 1, -1),
        out=linear(attention.out),
    )


def _scale(attention: Attention) -> float:
    """The factor for scores: 1 / sqrt(width of a head)."""
    return float((attention.query.out_features // attention.heads) ** -0.5)
