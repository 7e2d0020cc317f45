"""Where estimates go: the terminal, JSON lines, ZeroMQ."""

from emi_live.sinks.feed import Sink

__all__ = ["Sink"]
