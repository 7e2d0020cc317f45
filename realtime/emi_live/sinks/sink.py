"""The seam between a sink and the worker that feeds it."""

from __future__ import annotations

from typing import Protocol

from emi_live.messages import Estimate

__all__ = ["Sink"]


class Sink(Protocol):
    """Where estimates go. After `open` it is used by one thread; it owns no thread.

    A path or an address that cannot work is refused by the constructor or by `open`, so that a program that
    opens its sinks before it starts can say so at once.
    """

    @property
    def name(self) -> str:
        """The part's name in health reports, e.g. `terminal`."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nobody can receive anything from here any more; then `write` does nothing."""
        ...

    def open(self) -> None:
        """Get ready to write; a second call does nothing.

        Raises:
            ConfigurationError: the place cannot be written to.
        """
        ...

    def write(self, estimate: Estimate) -> None:
        """Pass one estimate on. A wait for a reader holds up this sink and, in exact mode, the engine."""
        ...

    def idle(self) -> None:
        """Do what is due without an estimate; called about every 100 ms while none comes."""
        ...

    def close(self) -> None:
        """Finish and release everything; a second call does nothing.

        Raises:
            LiveError: what is due at the end could not be written.
        """
        ...
