"""Running softmax sums against softmax in double precision, on scores that running sums are bad at."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from emi_engine.sliding_attention import UPDATES, Rows, RunningSums

HEADS, WIDTH, WINDOW = 2, 4, 32
EXACT = 1e-5  # of values around 1


class Attention:
    """Sums of a window that slides over given queries, keys and values (heads, N, width)."""

    def __init__(
        self,
        queries: NDArray[np.float32],
        keys: NDArray[np.float32],
        *,
        running: bool = True,
        window: int = WINDOW,
    ) -> None:
        self.queries, self.keys = queries, keys
        self.values = np.random.default_rng(9).standard_normal(keys.shape).astype(np.float32)
        self.rows = Rows(window)
        self.sums = RunningSums(self.rows, HEADS, WIDTH, running=running)

    def slide(self, start: int, stop: int) -> float:
        """Slide there; the largest difference from double precision of any row's output."""
        fresh = self.rows.stop
        self.rows.grow(stop)
        at = self.rows.at(fresh, stop)
        self.sums.query[:, at] = self.queries[:, fresh:stop]
        self.sums.key[:, :, at] = self.keys[:, fresh:stop].transpose(0, 2, 1)
        self.sums.value[:, at] = self.values[:, fresh:stop]
        self.sums.slide(start, fresh)
        self.rows.shrink(start)
        used = self.rows.at(start, stop)
        return float(
            np.abs(self.sums.mixed[:, used] / self.sums.total[:, used] - self.exact(start, stop)).max()
        )

    def exact(self, start: int, stop: int) -> NDArray[np.float64]:
        query, key, value = (
            x[:, start:stop].astype(np.float64) for x in (self.queries, self.keys, self.values)
        )
        scores = query @ key.transpose(0, 2, 1)
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed: NDArray[np.float64] = weights @ value / weights.sum(axis=2, keepdims=True)
        return mixed


def drawn(count: int, scale: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    queries, keys = (rng.standard_normal((HEADS, count, WIDTH)).astype(np.float32) for _ in range(2))
    return queries * np.float32(scale), keys


def worst(
    queries: NDArray[np.float32], keys: NDArray[np.float32], hop: int, *, running: bool = True
) -> float:
    """The largest difference over a whole stream in hops of so many frames."""
    attention = Attention(queries, keys, running=running)
    return max(attention.slide(max(0, stop - WINDOW), stop) for stop in range(hop, queries.shape[1], hop))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 50.0])
@pytest.mark.parametrize("hop", [1, 3, 20, 32])
def test_any_hop_at_any_sharpness(scale: float, hop: int) -> None:
    """Sharp scores are large and have lost digits themselves: the plain attention is not exact either."""
    streams = drawn(1000, scale)
    assert worst(*streams, hop) <= max(EXACT, 8 * worst(*streams, hop, running=False))


@pytest.mark.parametrize("rise", [3.0, 9.0, 30.0, 80.0, 200.0])
def test_a_key_that_outweighs_all_others_comes_and_goes(rise: float) -> None:
    """Its term is all of the sum; taken away, few digits of the others' remain."""
    queries, keys = np.ones((2, HEADS, 400, WIDTH), np.float32)
    keys *= np.random.default_rng(0).standard_normal((HEADS, 400, 1)).astype(np.float32) / WIDTH
    keys[:, ::50] += rise / WIDTH
    assert worst(queries, keys, 2) <= max(EXACT, 2 * worst(queries, keys, 2, running=False))


def test_a_window_that_grows_and_shrinks_without_moving_on() -> None:
    attention = Attention(*drawn(300))
    start = stop = 0
    for step in range(200):
        start, stop = min(start + step % 2, stop), max(stop + (step + 1) % 2, start)
        if stop - start > WINDOW:
            start = stop - WINDOW
        if stop > start:
            assert attention.slide(start, stop) <= EXACT


def test_the_rounding_that_a_large_value_leaves_is_gone_after_some_updates() -> None:
    """No score changes, so that only the count of updates can tell that rows must be computed whole."""
    window = 2 * UPDATES
    attention = Attention(*drawn(2 * window, 0.1), window=window)
    attention.values[:, 0] = 1e6
    attention.slide(0, window)
    differences = [attention.slide(step, window + step) for step in range(1, UPDATES + 2)]
    assert min(differences[:UPDATES]) > 100 * EXACT  # the large value went with the first slide
    assert differences[UPDATES] <= EXACT
    assert attention.sums.whole == window + (UPDATES + 1) + (window - UPDATES - 1)
