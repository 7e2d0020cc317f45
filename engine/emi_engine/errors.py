"""The errors of running a network, below `emi_models.errors.EmiError`.

::

    EmiError
    └── EngineError                  an engine cannot run this checkpoint
        ├── EngineUnavailableError   its runtime is not installed, or there is no engine of that name
        └── PlanError                a plan is damaged or of something else   (emi_engine.tensorrt.plans)
"""

from __future__ import annotations

from emi_models.errors import EmiError

__all__ = ["EngineError", "EngineUnavailableError"]


class EngineError(EmiError, RuntimeError):
    """A fusion engine could not be built from a checkpoint, or gave something that is not an intensity."""


class EngineUnavailableError(EngineError):
    """No engine of that name exists, or the runtime behind it is not installed."""
