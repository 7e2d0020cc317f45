"""From estimates to how long light or sound takes to show in them, by the code alone.

Stamps are not believed: the code is looked for in the values, at the times at which estimates were published.
Then the stamps are held against the code, so that a source that says a wrong capture time is found out. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_bench.live.pattern import SPAN_HOPS
from emi_bench.stats import Distribution
from emi_live.clock import NS_PER_MS, NS_PER_S
from emi_models.errors import EmiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from emi_bench.live.pattern import Track

__all__ = ["CodeUnreadableError", "Response", "Sight", "decode"]

STEP_NS: Final = NS_PER_MS  # to which lags are searched
LAG_S: Final = 5.0  # the longest that is looked for
STAMP_S: Final = 2.0  # the largest error of a stamp that is looked for, either way
LEAST_SWING: Final = 0.1  # between dark and bright, quiet and loud
LEAST_AGREEMENT: Final = 0.85  # of values with the code, where it fits best
LEAST_LEAD: Final = 0.1  # over the best fit at quite another lag
SLACK_MS: Final = 5.0  # by which stamps may miss the code: how late a thread may wake to see the time


class CodeUnreadableError(EmiError):
    """The code of light or sound is not to be found in the estimates."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one estimate shows, when it was published, and of what capture time it says that is."""

    value: float
    published_ns: int
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class Response:
    """How light or sound came through. All times in milliseconds."""

    to_estimate_ms: Distribution  # from an onset to the publication of the first estimate that reflects it
    onsets: int  # of which so many could have been reflected
    lag_ms: float  # at which the code fits best: the way from capture to publication, without any wait
    agreement: float  # share of estimates that fit the code at that lag
    runner_up: float  # that share at the best lag further than a span away: 0.5 is chance
    stamp_error_ms: tuple[float, float]  # within which the code leaves it; > 0: stamps say too late a time

    @property
    def stamps_right(self) -> bool:
        """Whether the stamps are those of the code."""
        low, high = self.stamp_error_ms
        return low - SLACK_MS <= 0 <= high + SLACK_MS


def decode(what: str, track: Track, sights: Sequence[Sight], hop_ns: int) -> Response:
    """Find the code of `track` in the sights, which are in order of time.

    Raises:
        CodeUnreadableError: it is not there, or too little of it to be sure; `what` names it.
    """
    values = np.array([sight.value for sight in sights])
    published = np.array([sight.published_ns for sight in sights], np.int64)
    stamps = np.array([sight.stamp_ns for sight in sights], np.int64)
    shown = _bits(what, values)
    span_ns = round(SPAN_HOPS[0] * hop_ns)

    lags = np.arange(0, round(LAG_S * NS_PER_S), STEP_NS)
    fits = _fits(track, shown, published, lags)
    best = int(fits.argmax())
    plateau = lags[_run_around(fits == fits[best], best)]
    lag_ns = int(plateau[len(plateau) // 2])
    runner_up = float(fits[np.abs(lags - lag_ns) > span_ns].max())
    agreement = float(fits[best])
    if agreement < LEAST_AGREEMENT or agreement - runner_up < LEAST_LEAD:
        raise CodeUnreadableError(
            f"the code of the {what} cannot be told in {len(sights)} estimates: at best {agreement:.0%} of "
            f"them fit it, and {runner_up:.0%} elsewhere; play it for longer (--duration 60)"
        )
    errors = np.arange(-round(STAMP_S * NS_PER_S), round(STAMP_S * NS_PER_S), STEP_NS)
    stamp_fits = _fits(track, shown, stamps, errors)
    right = errors[_run_around(stamp_fits == stamp_fits.max(), int(stamp_fits.argmax()))]
    latencies, onsets = _first_reflections(track, shown, published, lag_ns, hop_ns)
    found = Distribution.of(latencies)
    if found is None:
        raise CodeUnreadableError(f"no onset of the {what} was seen; play it for longer (--duration 60)")
    return Response(
        to_estimate_ms=found,
        onsets=onsets,
        lag_ms=lag_ns / NS_PER_MS,
        agreement=agreement,
        runner_up=runner_up,
        stamp_error_ms=(float(right[0]) / NS_PER_MS, float(right[-1]) / NS_PER_MS),
    )


def _bits(what: str, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high = np.percentile(values, (10, 90)) if values.size else (0.0, 0.0)
    if high - low < LEAST_SWING:
        raise CodeUnreadableError(
            f"the {what} does not show in {values.size} estimates, whose values stay between {low:.2f} and "
            f"{high:.2f}; play it for longer (--duration 60)"
        )
    return values > (low + high) / 2


def _fits(
    track: Track, shown: NDArray[np.bool_], times_ns: NDArray[np.int64], lags_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """For each lag, the share of values that are what the code was so long before their times."""
    return np.array([(track.on_at(times_ns - lag_ns) == shown).mean() for lag_ns in lags_ns])


def _run_around(true: NDArray[np.bool_], index: int) -> slice:
    """The run of true values that holds `index`, which is one."""
    false = np.flatnonzero(~true)
    after = int(np.searchsorted(false, index))
    first = int(false[after - 1]) + 1 if after else 0
    return slice(first, int(false[after]) if after < len(false) else len(true))


def _first_reflections(
    track: Track, shown: NDArray[np.bool_], published: NDArray[np.int64], lag_ns: int, hop_ns: int
) -> tuple[list[float], int]:
    """Milliseconds from each onset to the first estimate that shows it; and the onsets that could be seen.

    An estimate that shows something on, after one that showed it off, is the first of that onset. Which one
    it was the lag tells: an onset is seen a lag after it, and up to a hop later.
    """
    usual_ns = lag_ns + hop_ns // 2
    reach_ns = hop_ns // 2 + round(SPAN_HOPS[0] * hop_ns) // 2
    rises = published[1:][shown[1:] & ~shown[:-1]]
    latencies = []
    onsets = [
        int(t)
        for t in track.onsets_ns
        if published[0] <= t + lag_ns and t + usual_ns + reach_ns <= published[-1]
    ]
    for onset_ns in onsets:
        waits = rises - onset_ns
        near = waits[np.abs(waits - usual_ns) <= reach_ns]
        if near.size:
            latencies.append(float(near[np.abs(near - usual_ns).argmin()]) / NS_PER_MS)
    return latencies, len(onsets)
