"""What a training or an evaluation can be blamed for."""

from __future__ import annotations

from emi_models.errors import EmiError

__all__ = ["TrainingError"]


class TrainingError(EmiError, ValueError):
    """A training or an evaluation cannot be done as asked, or with these clips."""
