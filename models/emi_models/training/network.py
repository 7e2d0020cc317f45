"""A fresh network for a set of clips: their sizes and modalities, and what a person has set."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from emi_models.systems import SYSTEMS, build_network
from emi_models.training.errors import TrainingError
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_models.data.clip import ClipSet
    from emi_models.networks.base import FusionNetwork
    from emi_models.training.recipes.recipe import Recipe
    from emi_models.vocabulary import Modality

__all__ = ["network_for"]


def network_for(system: str, recipe: Recipe, clips: ClipSet, settings: Mapping[str, Any]) -> FusionNetwork:
    """A network of random weights for these clips, on the modalities that they have unless fewer are named.

    Args:
        system: its name.
        recipe: which may take some settings from the clips.
        clips: those to train on.
        settings: fields of the system's configuration, as JSON or TOML give them.

    Raises:
        TrainingError: a setting is unknown, or names a modality that the clips have not.
        CheckpointError: the settings are impossible together.
    """
    known = [field.name for field in fields(SYSTEMS[system][0]) if field.name != "shapes"]
    for name in settings:
        if name not in known:
            hint = "; the clips decide it" if name == "shapes" else ""
            raise TrainingError(f"unknown setting 'network.{name}'{hint}; {system} knows: {', '.join(known)}")
    there = tuple(m for m in MODALITIES if m in clips.encoders)
    modalities = _modalities(settings.get("modalities", there), there)
    rest = {**recipe.network(clips), **settings}
    rest.pop("modalities", None)
    return build_network(system, {"shapes": asdict(clips.shapes), **rest}, modalities)


def _modalities(asked: object, there: tuple[Modality, ...]) -> tuple[Modality, ...]:
    if not isinstance(asked, list | tuple) or not asked or not set(asked) <= set(there):
        raise TrainingError(
            f"network.modalities is {asked!r}; these clips have features of {', '.join(there) or 'none'}: "
            f"give a list of those, e.g. network.modalities='[\"{there[0] if there else 'text'}\"]'"
        )
    return tuple(m for m in MODALITIES if m in asked)
