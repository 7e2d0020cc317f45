"""Fusion engines: one network, run fast, behind one protocol. Importing this loads no runtime."""

from emi_engine.errors import EngineError, EngineUnavailableError
from emi_engine.load import DEVICES, ENGINES, FALLBACKS, Device, EngineKind, load_engine
from emi_engine.protocol import FusionEngine, FusionSession

__all__ = [
    "DEVICES",
    "ENGINES",
    "FALLBACKS",
    "Device",
    "EngineError",
    "EngineKind",
    "EngineUnavailableError",
    "FusionEngine",
    "FusionSession",
    "load_engine",
]
