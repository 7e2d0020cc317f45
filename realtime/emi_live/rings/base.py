"""What both rings share: a writer that may have to wait, readers with positions, progress, and an end."""

from __future__ import annotations

import threading
from typing import Final

from emi_live.errors import StalledError

__all__ = ["Reader", "Ring"]

UNKNOWN_NS: Final = -(2**62)  # before any capture time: the source has not said how far it has read


class Ring:
    """Positions and waiting, without the buffer. Items are counted from 0; `_end` is the next to come.

    A lossless ring also keeps how far its source has read the stream (`advance`): in a gap no item says so.
    """

    def __init__(self, what: str, capacity: int, *, lossless: bool) -> None:
        """Prepare a ring of `capacity` items; `what` names it in messages."""
        self._what = what
        self._capacity = capacity
        self._lossless = lossless
        self._changed = threading.Condition()
        self._readers: list[Reader] = []
        self._end = 0
        self._closed = False
        self._progress_ns = UNKNOWN_NS  # nothing captured before this will be written any more

    @property
    def capacity(self) -> int:
        """Items kept."""
        return self._capacity

    def advance(self, t_ns: int) -> None:
        """Nothing captured before `t_ns` will be written any more; any thread may call.

        Readers that have read all there is are told. Without `lossless` nobody waits for this, and it is not
        kept.
        """
        with self._changed:
            if self._lossless and not self._closed and t_ns > self._progress_ns:
                self._progress_ns = t_ns
                self._changed.notify_all()

    def close(self) -> None:
        """No more items will come; readers may still drain what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for_room(self, amount: int, timeout_s: float | None) -> bool:
        """Lossless, wait until all readers have left room for `amount`; whether to write. Holds `_changed`.

        Raises:
            StalledError: a reader made no room in time.
        """
        if self._lossless and not self._changed.wait_for(
            lambda: self._closed or self._has_room(amount), timeout_s
        ):
            raise StalledError(f"the {self._what} ring has been full for {timeout_s:g} s")
        return not self._closed

    def _has_room(self, amount: int) -> bool:
        slowest = min((reader.position for reader in self._readers), default=self._end)
        return self._end + amount - slowest <= self._capacity


class Reader:
    """One reader's position in a ring, at first at the next item to be written; used by one thread."""

    def __init__(self, ring: Ring, *, loose: bool = False) -> None:
        """Join the ring; a `loose` reader is never waited for, and loses what is overwritten."""
        self._base = ring
        self._changed = ring._changed
        with self._changed:
            self.position = ring._end  # index of the next item to read
            self._told_ns = UNKNOWN_NS  # the progress at the end of the last wait
            if not loose:
                ring._readers.append(self)

    @property
    def backlog(self) -> int:
        """Items written but not read yet."""
        with self._changed:
            return self._base._end - self.position

    @property
    def ended(self) -> bool:
        """Whether the ring is closed and everything in it has been read."""
        with self._changed:
            return self._base._closed and self.position >= self._base._end

    @property
    def progress_ns(self) -> int | None:
        """Everything to come was captured at or after this; None if it is not known, or items wait."""
        with self._changed:
            known = self._base._progress_ns
            return None if known == UNKNOWN_NS or self._base._end > self.position else known

    def wait(self, timeout_s: float) -> bool:
        """Wait for something to read, for progress, or for the end; False after `timeout_s`."""
        with self._changed:
            base = self._base
            woken = self._changed.wait_for(
                lambda: base._closed or base._end > self.position or base._progress_ns > self._told_ns,
                timeout_s,
            )
            self._told_ns = base._progress_ns
            return woken

    def close(self) -> None:
        """Leave the ring: its writer waits for this reader no more. A second call does nothing."""
        with self._changed:
            if self in self._base._readers:
                self._base._readers.remove(self)
            self._changed.notify_all()
