"""Whether a modality is live in a window, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emi_live.messages import ModalityState

__all__ = ["Condition", "Verdict", "is_recent", "judge"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a modality beside its packets: whether its part can work at all, and why not.

    `paused`: nothing is taken, as the program asked. The detail of `ok` says why nothing usable may come.
    """

    state: Literal["ok", "failed", "unavailable", "absent", "paused"] = "ok"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A modality's state at one instant; `reason` is None only when it is live."""

    state: ModalityState
    reason: str | None

    @property
    def live(self) -> bool:
        """Whether its evidence may be used."""
        return self.state == "live"


def is_recent(t_ns: int | None, end_ns: int, within_ns: int) -> bool:
    """Whether something happened at most `within_ns` before `end_ns`."""
    return t_ns is not None and end_ns - t_ns <= within_ns


def judge(recent: bool, condition: Condition, why_missing: str) -> Verdict:
    """Live while the newest usable evidence is recent; else what is wrong with its part, or is missing."""
    if condition.state == "paused":
        return Verdict("missing", condition.detail)
    if recent:
        return Verdict("live", None)
    if condition.state == "failed" or condition.state == "unavailable":
        return Verdict(condition.state, condition.detail)
    return Verdict("missing", "no source" if condition.state == "absent" else condition.detail or why_missing)
