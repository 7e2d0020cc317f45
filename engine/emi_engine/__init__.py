"""Fusion engines: one network, run fast, behind one protocol. Importing this loads no runtime."""

from emi_engine.errors import EngineError, EngineUnavailableError
from emi_engine.load import ENGINES, EngineKind, load_engine
from emi_engine.protocol import FusionEngine

__all__ = ["ENGINES", "EngineError", "EngineKind", "EngineUnavailableError", "FusionEngine", "load_engine"]
