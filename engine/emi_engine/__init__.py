"""Fusion engines: one network, run fast, behind one protocol. Importing this loads no runtime."""

import emi_models  # noqa: F401 # before any library: it tells them to send nothing home
from emi_engine.load import DEVICES, ENGINES, FALLBACKS, Device, EngineKind, load_engine
from emi_engine.protocol import EngineError, EngineUnavailableError, FusionEngine, FusionSession

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
