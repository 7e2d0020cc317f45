"""Fusion: every hop a window, through the compiled network, to an estimate on the bus."""

from emi_live.fusion.loop import FusionLoop, FusionPlan
from emi_live.fusion.sharing import SharedEngine

__all__ = ["FusionLoop", "FusionPlan", "SharedEngine"]
