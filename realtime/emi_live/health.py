"""The state of the running engine: counters of what was dropped on each edge, and the state of every part.

Thread-safe. What happens per frame is counted here; a change of state is one INFO line of the log.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from emi_live.addresses import safe_text
from emi_models.console import printable

__all__ = ["Health", "HealthSnapshot", "PartState", "PartStatus"]

FIRST_ESTIMATE: Final = "fusion.estimates"  # this counter shows that the start is over

PartState = Literal["starting", "running", "failed", "unavailable", "absent", "ended"]

MAX_DETAIL: Final = (
    400  # characters: a reason on the bus has at most 500, and a library's error may have thousands
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part's state and, in English, why. `absent`: the run does not have this part."""

    state: PartState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """A consistent copy of all counters and states, owned by the caller."""

    counters: dict[str, int]
    parts: dict[str, PartStatus]
    before: dict[str, int] = field(default_factory=dict)  # the counters at the first estimate
    facts: dict[str, float] = field(default_factory=dict)  # about the media, e.g. their length


class Health:
    """Counters and states of the parts of one engine; any thread may write or read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()
        self._parts: dict[str, PartStatus] = {}
        self._before: dict[str, int] = {}
        self._facts: dict[str, float] = {}

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter, e.g. `camera.overwritten` or `bus.vision.dropped`."""
        with self._lock:
            if name == FIRST_ESTIMATE and not self._counters[name]:
                self._before = dict(self._counters)
            self._counters[name] += amount

    def note(self, name: str, value: float) -> None:
        """Record a fact, e.g. `file.duration_s`, the length of the file in seconds."""
        with self._lock:
            self._facts[name] = value

    def report(self, part: str, state: PartState, detail: str = "") -> None:
        """Record a part's state; a change is logged once.

        `detail` may be a library's error: it is escaped and cut, and secrets of addresses are hidden.
        """
        detail = printable(safe_text(detail), MAX_DETAIL)
        status = PartStatus(state, detail)
        with self._lock:
            previous = self._parts.get(part)
            self._parts[part] = status
        if previous != status:
            level = logging.WARNING if state == "failed" else logging.INFO
            logger.log(level, "%s: %s%s", part, state, f" ({status.detail})" if detail else "")

    def status(self, part: str) -> PartStatus:
        """The part's state; `absent` if it never reported."""
        with self._lock:
            return self._parts.get(part, PartStatus("absent"))

    def snapshot(self) -> HealthSnapshot:
        """All counters and states at one instant."""
        with self._lock:
            return HealthSnapshot(
                dict(self._counters), dict(self._parts), dict(self._before), dict(self._facts)
            )
