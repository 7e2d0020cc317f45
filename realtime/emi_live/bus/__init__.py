"""The ZeroMQ fabric between stages, windows and sinks."""

from emi_live.bus.bus import Bus
from emi_live.bus.publisher import Publisher
from emi_live.bus.subscription import Subscription

__all__ = ["Bus", "Publisher", "Subscription"]
