"""What all sections of the configuration share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Positive", "Section"]

Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings: an unknown key is an error, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
