"""Whether sessions get the estimates that are due; a machine on which they do not is full. Pure.

Nothing is calibrated: a machine is full when the people who are there get too little, whatever the reason is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

__all__ = ["SPAN_S", "Pace", "share_of"]

SPAN_S: Final = 5.0  # over which estimates are counted
STEP_S: Final = 1.0  # between two looks at the counters
BEHIND: Final = 0.8  # a session with a smaller share of its estimates is behind,
IN_TIME: Final = 0.95  # and is not any more from this share on
FULL: Final = 0.5  # of the estimates of all sessions: with less, nobody new is taken


class Pace:
    """How many of its estimates one session got in the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, int]] = deque()  # second, and both counters
        self.behind = False

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look at the counters again."""
        return not self._looks or now_s - self._looks[-1][0] >= STEP_S

    def take(self, now_s: float, made: int, missed: int) -> None:
        """Take counters of the session so far: estimates that were made, and that were left out."""
        self._looks.append((now_s, made, missed))
        while len(self._looks) > 2 and now_s - self._looks[1][0] >= SPAN_S:
            self._looks.popleft()
        share = share_of([self])
        if share is not None:
            self.behind = share < (IN_TIME if self.behind else BEHIND)

    @property
    def counted(self) -> tuple[int, int] | None:
        """Estimates that were made and that were due in the last seconds; None: not known yet."""
        if not self._looks or self._looks[-1][0] - self._looks[0][0] < SPAN_S:
            return None
        (_, made, missed), (_, made_now, missed_now) = self._looks[0], self._looks[-1]
        return made_now - made, made_now - made + missed_now - missed


def share_of(paces: Iterable[Pace]) -> float | None:
    """The share of the due estimates that were made, of all together; None: not known yet."""
    known = [pace.counted for pace in paces]
    made = sum(one[0] for one in known if one is not None)
    due = sum(one[1] for one in known if one is not None)
    return made / due if due else None
