"""Fusion: every hop a window, through the compiled network, to an estimate on the bus."""

from emi_live.fusion.loop import FusionLoop, LoopOptions

__all__ = ["FusionLoop", "LoopOptions"]
