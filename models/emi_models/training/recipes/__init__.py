"""The recipes of the papers, one system a file: settings that they give, with what they leave open chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emi_models.errors import TrainingError
from emi_models.training.recipes import dual_stage, semantic_matters, taemi, two_stage
from emi_models.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RECIPES", "recipe_of"]

RECIPES: Final[Mapping[str, Recipe]] = {
    "taemi": taemi.RECIPE,
    "two_stage": two_stage.RECIPE,
    "dual_stage": dual_stage.RECIPE,
    "semantic_matters": semantic_matters.RECIPE,
}


def recipe_of(system: str) -> Recipe:
    """How a system is trained.

    Raises:
        TrainingError: there is no such system; the message lists those that there are.
    """
    if system not in RECIPES:
        raise TrainingError(f"no system is called {system!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[system]
