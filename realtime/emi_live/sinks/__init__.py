"""Where estimates go: the terminal, JSON lines, ZeroMQ."""

from emi_live.sinks.sink import Sink

__all__ = ["Sink"]
