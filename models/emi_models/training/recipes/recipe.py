"""The words of a recipe: how a system is trained, as data; `emi_models.training.fit` carries it out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from emi_models.training.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emi_models.data.clip import ClipSet
    from emi_models.training.config import TrainingSettings
    from emi_models.training.recipes.objectives import Objective
    from emi_models.training.schedules import Schedule

__all__ = ["Clipping", "Recipe", "Stage"]


@dataclass(frozen=True, slots=True)
class Clipping:
    """Gradients are limited: each value's magnitude, or the norm of all of them together."""

    limit: float
    by: Literal["value", "norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
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

    def adjusted(self, settings: TrainingSettings) -> Stage:
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
    """How a system is trained: its stages in order, which may hang on the network's configuration."""

    stages: Callable[[Any], tuple[Stage, ...]]  # from the system's own configuration
    missing: Callable[[Any], str]  # what an absent modality does to it, for the checkpoint's notes; likewise
    network: Callable[[ClipSet], Mapping[str, object]] = _no_settings  # what the clips decide of its settings

    def adjusted_stages(self, network: Any, settings: TrainingSettings) -> tuple[Stage, ...]:
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
