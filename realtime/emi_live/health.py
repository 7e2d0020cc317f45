"""What the engine knows of its own condition: drop counters per edge and the state of every part.

Thread-safe. Per-frame facts are counters here; a change of state is one INFO line of the log.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from emi_live.addresses import safe_text
from emi_models.printable import printable

__all__ = ["Health", "HealthSnapshot", "PartState", "PartStatus"]

PartState = Literal["starting", "running", "failed", "unavailable", "absent", "ended"]

MAX_DETAIL: Final = 400  # characters: the bus takes 500 of a reason, and a library's error may have thousands

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part's state and, in words, why. `absent`: nothing of the kind was asked for."""

    state: PartState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """A consistent copy of all counters and states, owned by the caller."""

    counters: dict[str, int]
    parts: dict[str, PartStatus]


class Health:
    """Counters and states of the parts of one engine; any thread may write or read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()
        self._parts: dict[str, PartStatus] = {}

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter, e.g. `camera.overwritten` or `bus.vision.dropped`."""
        with self._lock:
            self._counters[name] += amount

    def report(self, part: str, state: PartState, detail: str = "") -> None:
        """Record a part's state; a change is logged once.

        What a library says is escaped and cut, and secrets of addresses are hidden.
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
            return HealthSnapshot(dict(self._counters), dict(self._parts))
