"""The ZeroMQ fabric between stages, windows and sinks."""

from emi_live.bus.bus import Bus, PacketReader, PacketWriter, Publisher, Subscription

__all__ = ["Bus", "PacketReader", "PacketWriter", "Publisher", "Subscription"]
