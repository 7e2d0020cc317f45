"""Steady capture times from the jittering ones that a sound driver reports."""

from __future__ import annotations

from typing import Final

from emi_live.clock import NS_PER_S
from emi_live.rings.audio import GAP_NS

__all__ = ["AdcTimeline"]

FOLLOW: Final = (
    20  # a twentieth of each deviation is taken over: at 32 ms blocks, drift is followed in about 0.6 s
)


class AdcTimeline:
    """Stamps consecutive blocks of one stream.

    Blocks follow each other without a gap, so their times advance by their length; the reported times only
    correct that slowly. A deviation of 60 ms or more is believed at once: samples are missing.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._expected_ns: int | None = None

    def stamp(self, reported_ns: int, samples: int, *, broken: bool = False) -> int:
        """Capture time of a block's first sample; `broken` if samples before it are known to be missing."""
        t_ns = reported_ns
        if self._expected_ns is not None and not broken:
            deviation_ns = reported_ns - self._expected_ns
            if abs(deviation_ns) < GAP_NS:
                t_ns = self._expected_ns + deviation_ns // FOLLOW
        self._expected_ns = t_ns + samples * NS_PER_S // self._rate_hz
        return t_ns
