"""One modality over time: its frames' rows, the attention among them, and what a query finds there.

With p_i a frame's projection and a_i its self-attention's mix of values, the sequence is
y_i = p_i + O a_i + o. Neither y nor a is ever written down: a query's scores are
u . y_i = u . p_i + (O^T u) . a_i + const, and the weighted sum of the y is that of the p plus O times that of
the a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from emi_engine.incremental.products import scores_of, weighted_sum
from emi_engine.incremental.rows import Rows
from emi_engine.incremental.sums import RunningSums
from emi_models.inputs import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emi_engine.incremental.weights import Across, SequenceWeights
    from emi_models.stream import FrameRun
    from emi_models.vocabulary import Modality

    Floats = NDArray[np.float32]

__all__ = ["Sequence"]

QUERIES: Final = 2  # that of the words, and that of their missing token


class Sequence:
    """What is known of one modality's frames in the window that `slide` saw last."""

    def __init__(
        self, name: Modality, weights: SequenceWeights, capacity: int, *, running_sums: bool = True
    ) -> None:
        """Empty; for windows of at most `capacity` frames."""
        self._name = name
        self._weights = weights
        self._rows = Rows(capacity)
        d_model = weights.project.bias.shape[0]
        self._projected = self._rows.array(1, d_model)
        self._sums: RunningSums | None = None
        if weights.within is not None:
            width = d_model // weights.heads
            self._sums = RunningSums(self._rows, weights.heads, width, running=running_sums)
        self._folded: list[
            tuple[Floats, Floats, Floats | None]
        ] = []  # the last queries, each with its two keys
        self._absent: Floats | None = None

    def __len__(self) -> int:
        return self._rows.stop - self._rows.start

    @property
    def trained(self) -> bool:
        """Whether the network is ever shown this modality."""
        return self._weights.trained

    @property
    def computed(self) -> int:
        """Attention rows that were computed whole so far; a measure of how much was not reused."""
        return 0 if self._sums is None else self._sums.whole

    def restart(self) -> None:
        """Forget all frames."""
        self._rows.restart(0)

    def slide(self, run: FrameRun) -> None:
        """The window is now this run; only frames that the last one did not have are read.

        A run that cannot follow from the last one is taken in anew; tell of another stream by `restart`,
        since its numbers may look as if they followed.

        Raises:
            InputError: a new frame is not finite.
        """
        rows = self._rows
        if not rows.start <= run.start <= rows.stop <= run.stop:
            rows.restart(run.start)
        fresh = rows.stop
        values = run.values[fresh - run.start :]
        if not np.isfinite(values).all():
            raise InputError(
                f"{self._name} holds {np.count_nonzero(~np.isfinite(values))} of {values.size} new values "
                "that are NaN or infinite; drop those frames or mark the modality as not present"
            )
        rows.grow(run.stop)
        if len(values):
            self._take_in(values, rows.at(fresh, run.stop))
        if self._sums is not None:
            self._sums.slide(run.start, fresh)
        rows.shrink(run.start)

    def queried(self, queries: Floats) -> Floats:
        """What the anchor's queries (R, D) find in the window, (R, D); the window has a frame."""
        across = self._weights.across
        assert across is not None  # noqa: S101  # a network asks only what its variant has
        on_p, on_a = self._fold(across, queries)
        used = self._rows.at(self._rows.start, self._rows.stop)
        projected = self._projected[0, used]  # (T, D)
        scores = scores_of(on_p, projected)  # (R H, T)
        if self._sums is not None and on_a is not None:
            shares = self._sums.mixed[:, used] @ on_a  # (heads, T, R H): each inner head's share of the score
            shares /= self._sums.total[:, used]
            scores += shares.sum(axis=0).T
        scores -= scores.max(axis=1, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= weights.sum(axis=1, keepdims=True)
        found = self._weighted(weights, used).reshape(-1, across.heads, 1, projected.shape[1])
        heads = found @ across.value + across.value_bias  # (R, H, 1, width)
        return across.out(heads.reshape(len(queries), -1))

    def pooled(self) -> Floats:
        """The mean (1, D) of the window's sequence; the window has a frame."""
        used = self._rows.at(self._rows.start, self._rows.stop)
        return self._weighted(np.full((1, len(self)), 1 / len(self), np.float32), used)

    def absent(self) -> Floats:
        """What any query finds (1, D), or the mean, where the stand-in is all there is."""
        if self._absent is None:
            y = self._weights.project(self._weights.stand_in)
            if (within := self._weights.within) is not None:  # a sequence of one attends to itself alone
                value = within.qkv(within.normalised(y))[:, -y.shape[1] :]
                y = y + within.out(value)
            if (across := self._weights.across) is not None:
                heads = y @ across.value + across.value_bias  # (H, 1, width)
                y = across.out(heads.transpose(1, 0, 2).reshape(1, -1))
            self._absent = y
        return self._absent

    def _take_in(self, values: Floats, rows: slice) -> None:
        """Set the rows of new frames."""
        projected = self._weights.project(values)
        self._projected[0, rows] = projected
        within, sums = self._weights.within, self._sums
        if within is not None and sums is not None:
            made = within.qkv(within.normalised(projected))  # (n, 3 D)
            split = made.reshape(len(values), 3, self._weights.heads, -1).transpose(1, 2, 0, 3)
            sums.query[:, rows], sums.value[:, rows] = split[0], split[2]
            sums.key[:, :, rows] = split[1].transpose(0, 2, 1)

    def _fold(self, across: Across, queries: Floats) -> tuple[Floats, Floats | None]:
        """What a query's scores are taken with, on p (R H, D) and on a (heads, width, R H).

        The last ones are kept: words change far less often than windows.
        """
        for kept, on_p, on_a in self._folded:
            if np.array_equal(kept, queries):
                return on_p, on_a
        q = across.query(queries).reshape(len(queries), across.heads, 1, -1)
        on_p = (q @ across.key).reshape(-1, across.key.shape[2])
        on_a = None
        if (within := self._weights.within) is not None:
            mixed = within.onto(on_p).reshape(len(on_p), self._weights.heads, -1)
            on_a = np.ascontiguousarray(mixed.transpose(1, 2, 0))
        self._folded = [(queries.copy(), on_p, on_a), *self._folded[: QUERIES - 1]]
        return on_p, on_a

    def _weighted(self, weights: Floats, used: slice) -> Floats:
        """Sums (R, D) of the sequence with weights (R, T), each row of which sums to one."""
        found = weighted_sum(weights, self._projected[0, used])
        within, sums = self._weights.within, self._sums
        if within is None or sums is None:
            return found
        scaled: Floats = weights / sums.total[:, used].transpose(0, 2, 1)  # (heads, R, T)
        mixed: Floats = scaled @ sums.mixed[:, used]  # (heads, R, width)
        found += within.out(mixed.transpose(1, 0, 2).reshape(len(weights), -1))
        return found
