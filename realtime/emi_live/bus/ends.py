"""The two ends of the bus as stages, fusion and sinks see them: the seams that fakes stand in for."""

from __future__ import annotations

from typing import Protocol

from emi_live.messages import Packet

__all__ = ["PacketReader", "PacketWriter"]


class PacketReader(Protocol):
    """A subscription; used by one thread."""

    @property
    def ended(self) -> bool:
        """Whether the last packet of every topic has been read."""
        ...

    def read(self) -> Packet | None:
        """The next packet, or None when none has arrived; never waits."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Wait for a packet; False after `timeout_s`."""
        ...

    def close(self) -> None:
        """Leave the topics."""
        ...


class PacketWriter(Protocol):
    """A publisher of one topic; used by one thread."""

    def publish(self, packet: Packet) -> None:
        """Send one packet, stamped with its number and the time."""
        ...
