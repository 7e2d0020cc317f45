"""The words of a recipe: how a system is trained, as data; `emi_models.training.fit` carries it out.

Learning rates over a stage: each schedule gives the share of the stage's own rate at an optimiser step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from emi_models.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emi_models.data.clip import ClipSet
    from emi_models.training.config import TrainingSettings
    from emi_models.training.recipes.objectives import Objective

__all__ = ["Clipping", "Constant", "Cosine", "Plateau", "Recipe", "Restarts", "Schedule", "TrainingStage"]


@dataclass(frozen=True, slots=True)
class Clipping:
    """Gradients are limited: each value's magnitude, or the norm of all of them together."""

    limit: float
    by: Literal["value", "norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """One stage: what it learns, and how, by AdamW. It leaves the network as at its best epoch, whole."""

    name: str
    objective: Callable[[Any], Objective]  # from the system's own network; each recipe knows its class
    schedule: Schedule
    epochs: int
    patience: int  # epochs without a better score that end the stage
    batch_size: int
    learning_rate: float
    weight_decay: float
    clipping: Clipping | None = None
    margin: float = 0.0  # by how much a score must be better to count as better
    average: float | None = None  # decay per step of averaged weights, which are then scored and kept

    def adjusted(self, settings: TrainingSettings) -> TrainingStage:
        """This stage with what the settings say for all stages, then for this one."""
        changes: dict[str, Any] = {}
        for given in (settings, settings.stages.get(self.name)):
            if given is not None:
                changes |= {
                    field: value
                    for field, setting in _SETTINGS.items()
                    if (value := getattr(given, setting)) is not None
                }
        return replace(self, **changes)


_SETTINGS = {
    "epochs": "max_epochs",
    "patience": "patience",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
}


def _no_settings(clips: ClipSet) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a system is trained: its stages in order, which may depend on the network's configuration."""

    stages: Callable[[Any], tuple[TrainingStage, ...]]  # from the system's own configuration
    missing: Callable[[Any], str]  # what an absent modality does to it, for the checkpoint's notes; likewise
    network: Callable[[ClipSet], Mapping[str, object]] = _no_settings  # what the clips decide of its settings

    def adjusted_stages(self, network: Any, settings: TrainingSettings) -> tuple[TrainingStage, ...]:
        """The stages for a network of this configuration, with what the settings say.

        Raises:
            TrainingError: the settings name a stage that there is not.
        """
        stages = self.stages(network)
        names = [stage.name for stage in stages]
        if unknown := sorted(set(settings.stages) - set(names)):
            raise TrainingError(
                f"unknown setting 'training.stages.{unknown[0]}'; the stages here are: {', '.join(names)}"
            )
        return tuple(stage.adjusted(settings) for stage in stages)


@dataclass(frozen=True, slots=True)
class Constant:
    """The stage's own rate throughout."""

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """1 at every step."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Cosine:
    """A linear rise from nearly 0 over `warm_up` epochs, then half a cosine down to 0 at the last step."""

    warm_up: int = 0

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """The share, in (0, 1], at optimiser step `step` of `epochs` x `epoch_steps`, counted from 0."""
        rise = min(self.warm_up, epochs) * epoch_steps
        if step < rise:
            return (step + 1) / rise
        fall = epochs * epoch_steps - rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, fall))))


@dataclass(frozen=True, slots=True)
class Restarts:
    """Cosine annealing with warm restarts (SGDR, Loshchilov & Hutter 2017), step by step.

    Every `cycle` epochs the rate falls from 1 towards `floor`, both shares of the stage's rate, then starts
    again; the optimiser's momentum is kept.
    """

    cycle: int
    floor: float

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """The share, in (floor, 1], at optimiser step `step`, counted from 0."""
        length = self.cycle * epoch_steps
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * (step % length) / length))


@dataclass(frozen=True, slots=True)
class Plateau:
    """The rate times `by` whenever the validation score has not risen for more than `patience` epochs.

    It acts on scores, so the training task keeps its state; it changes nothing from step to step.
    """

    by: float
    patience: int

    def factor(self, step: int, epoch_steps: int, epochs: int) -> float:
        """1 at every step."""
        return 1.0


Schedule = Constant | Cosine | Restarts | Plateau
