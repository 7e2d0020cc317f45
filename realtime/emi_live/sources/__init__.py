"""Sources: each fills the engine's rings from one kind of media."""

from emi_live.sources.device import Source
from emi_live.sources.opening import open_sources
from emi_live.sources.push import PushSource

__all__ = ["PushSource", "Source", "open_sources"]
