"""Sources: each fills the engine's rings from one kind of media. `source.py` holds the protocol."""

from emi_live.sources.source import Source, open_sources

__all__ = ["Source", "open_sources"]
