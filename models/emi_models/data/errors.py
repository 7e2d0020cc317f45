"""What training data can be blamed for."""

from __future__ import annotations

from emi_models.errors import EmiError

__all__ = ["DataError"]


class DataError(EmiError, ValueError):
    """Training data are not there, or are not in the form that their publisher gives them."""
