"""The code by which light and sound are recognised in the estimates: on and off for pseudo-random times.

A span lasts two to four hops, so that every one reaches at least one estimate, at no fixed phase of the hop,
and the order of the spans tells which part of the code an estimate shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from emi_live.clock import seconds_to_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SPAN_HOPS", "Track", "make_code"]

SPAN_HOPS: Final = (2.0, 4.0)  # shortest and longest


@dataclass(frozen=True, slots=True)
class Track:
    """When something was on, in true capture time: switches at `times_ns`, the first one to on."""

    times_ns: NDArray[np.int64]  # increasing

    @classmethod
    def of(cls, switches: Sequence[tuple[int, bool]]) -> Track:
        """From (time, whether it is on from then on), alternating; what it is before the first on is off."""
        from_first_on = switches[1:] if switches and not switches[0][1] else switches
        return cls(np.array([time_ns for time_ns, _ in from_first_on], np.int64))

    def on_at(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether it was on, at times of any shape."""
        on: NDArray[np.bool_] = np.searchsorted(self.times_ns, times_ns, side="right") % 2 == 1
        return on

    @property
    def onsets_ns(self) -> NDArray[np.int64]:
        """When it went on."""
        return self.times_ns[::2]

    def shown_by(self, memory_ns: int) -> Track:
        """What is seen by something that looks back `memory_ns`: it goes on at once, and off later."""
        times_ns = self.times_ns.copy()
        times_ns[1::2] += memory_ns
        return Track(times_ns)


def make_code(start_ns: int, duration_s: float, hop_s: float, seed: int = 7) -> Track:
    """A code from `start_ns` on, for at least `duration_s`; the same seed gives the same code."""
    shortest_s, longest_s = (hops * hop_s for hops in SPAN_HOPS)
    count = int(np.ceil(duration_s / shortest_s)) + 1
    spans_s = np.random.default_rng(seed).uniform(shortest_s, longest_s, count)
    spans_ns = np.array([seconds_to_ns(span) for span in spans_s], np.int64)
    return Track(start_ns + np.cumsum(spans_ns))
