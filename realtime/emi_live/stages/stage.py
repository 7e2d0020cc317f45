"""The seam between a stage and the worker that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from emi_live.messages import Packet

__all__ = ["Stage"]


class Stage(Protocol):
    """Turns what has arrived into packets. Used by one thread; owns no thread, socket or clock."""

    @property
    def name(self) -> str:
        """The part's name in health reports, e.g. `face`."""
        ...

    @property
    def topic(self) -> str:
        """The topic that all its packets have, e.g. `vision`."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the input is over and the last packets, with `END_OF_STREAM`, have been returned."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Wait for input; False when none came within `timeout_s`."""
        ...

    def step(self, now_ns: int) -> Sequence[Packet]:
        """Process what has arrived, without waiting. Packets are in order of `progress_ns`."""
        ...

    def reset(self) -> None:
        """Forget everything heard or seen, as after a failure; the position in the input is kept."""
        ...

    def close(self) -> None:
        """Leave the input, so that in exact mode nothing upstream waits for this stage any more."""
        ...
