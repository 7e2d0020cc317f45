"""What the store tells of its models: where each one is, and how far one under way has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from emi_models.store.entry import ModelEntry

__all__ = ["ModelState", "ModelStatus", "Progress", "PullEvent"]

ModelState = Literal["store", "wheel", "incomplete", "damaged", "absent"]


@dataclass(frozen=True, slots=True)
class PullEvent:
    """How far a model under way has come.

    Attributes:
        model: its name in the catalogue.
        file: the file under way.
        done: bytes of the whole model that are here.
        total: bytes of the whole model.
        note: a few words when something other than bytes happened, else empty.
    """

    model: str
    file: str
    done: int
    total: int
    note: str = ""


Progress: TypeAlias = Callable[[PullEvent], None]  # called on the thread that pulls


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Where a model is.

    Attributes:
        state: `store`, `wheel`: usable, from there; `incomplete`: some files, or a part of one; `damaged`: a
            file is not the pinned one; `absent`: nothing.
        path: the file of a one-file model, else the folder; where it would go, if it is not here.
        problems: one line for each file that is missing or wrong.
    """

    entry: ModelEntry
    state: ModelState
    path: Path
    problems: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether the model can be used."""
        return self.state in ("store", "wheel")
