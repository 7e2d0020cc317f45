"""The order in which an epoch takes its samples, in batches of like length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["BucketedBatches"]

POOL: Final = 50  # batches sorted by length together: enough to be alike, few enough to stay mixed


class BucketedBatches(Sampler[list[int]]):
    """Batches of samples of like length, in an order that only `seed` and the epoch decide.

    Each sample comes once an epoch. Samples are shuffled, sorted by length within pools of 50 batches, cut
    into batches, and the batches shuffled. `set_epoch(epoch, done)` goes on after `done` batches of an epoch.

    Args:
        lengths: of each sample, in any unit.
        batch_size: samples a batch; the last one may have fewer.
        seed: of the order.
        drop_last: leave that last one out, unless it is the only one.
    """

    def __init__(
        self,
        lengths: Sequence[float] | NDArray[np.float64],
        batch_size: int,
        *,
        seed: int,
        drop_last: bool = False,
    ) -> None:
        self.lengths = np.asarray(lengths, np.float64)
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last and len(self.lengths) > batch_size
        self._epoch = 0
        self._done = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._order()[self._done :]

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Which epoch the next iteration gives, and after how many of its batches it begins."""
        self._epoch, self._done = epoch, done

    def _order(self) -> list[list[int]]:
        draw = np.random.default_rng((self.seed, self._epoch))
        shuffled = draw.permutation(len(self.lengths))
        if self.drop_last:
            shuffled = shuffled[: len(self) * self.batch_size]
        pool = POOL * self.batch_size
        pools = [shuffled[start : start + pool] for start in range(0, len(shuffled), pool)]
        order = np.concatenate([one[np.argsort(self.lengths[one], kind="stable")] for one in pools])
        batches = [order[at : at + self.batch_size].tolist() for at in range(0, len(order), self.batch_size)]
        return [batches[place] for place in draw.permutation(len(batches))]
