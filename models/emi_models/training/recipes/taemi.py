"""TAEMI: one stage, as in the paper's §3.5 and §4.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from emi_models.training.recipes.objectives import Regression
from emi_models.training.recipes.recipe import Clipping, Cosine, Recipe, TrainingStage

if TYPE_CHECKING:
    from emi_models.networks.taemi import TaemiConfig

__all__ = ["RECIPE"]

# The paper clips "with a threshold of 100.0" and does not say what; the authors' own training limits values.
_STAGE: Final = TrainingStage(
    name="fusion",
    objective=Regression,
    schedule=Cosine(warm_up=1),
    epochs=50,
    patience=5,
    batch_size=32,
    learning_rate=1e-4,
    weight_decay=0.01,
    clipping=Clipping(100.0, "value"),
)


def _stages(config: TaemiConfig) -> tuple[TrainingStage, ...]:
    return (_STAGE,)


def _missing(config: TaemiConfig) -> str:
    stand_in = "its learned token" if config.missing == "token" else "zeros"
    dropped = f"dropped at random in training, p = {config.modality_dropout}"
    never = "no modality is dropped in training"
    return f"{stand_in} in place of an absent modality; {dropped if config.modality_dropout else never}"


RECIPE: Final = Recipe(stages=_stages, missing=_missing)
