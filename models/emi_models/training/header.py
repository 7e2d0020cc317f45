"""What a trained checkpoint's header says."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from emi_models.checkpoint import CheckpointHeader
from emi_models.systems import describe_config
from emi_models.vocabulary import EMOTIONS

if TYPE_CHECKING:
    from emi_models.networks.base import FusionNetwork
    from emi_models.training.clips import RatedClips
    from emi_models.training.config import TrainConfig
    from emi_models.training.recipes.recipe import Recipe
    from emi_models.training.run import StageResult

__all__ = ["header_of"]

_LIBRARIES: Final = ("emi-live", "torch", "lightning")


def header_of(
    system: str,
    network: FusionNetwork,
    clips: RatedClips,
    config: TrainConfig,
    recipe: Recipe,
    last: StageResult,
) -> CheckpointHeader:
    """The whole story of a network that has just been trained; scores are those of its best epoch on valid.

    Notes: `missing`, what an absent modality does to it; `validation`, which clips chose the epoch, and
    `held_out` and `held_out_seed` where they were drawn from train; `prefixes` where windows were cut short.
    """
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    seed = config.training.seed
    notes = {"missing": recipe.missing(network.config), "validation": clips.validation}
    if clips.drawn:
        notes |= {"held_out": str(config.data.held_out), "held_out_seed": str(config.data.held_out_seed)}
    if config.data.prefixes:
        notes["prefixes"] = f"{config.data.prefixes} of the training windows ended before their clip did"
    return CheckpointHeader(
        system=system,
        config=describe_config(network.config),
        modalities=network.config.modalities,
        encoders={str(modality): name for modality, name in clips.encoders.items()},
        data=clips.description,
        licence=clips.licence,
        scores=_scores(last),
        created_by=f"emi train, {system}, seed {seed}, epoch {last.best_epoch} of {last.name}; {libraries}",
        emotions=EMOTIONS if network.config.task == "emi" else (),
        spans_s={str(modality): span for modality, span in config.data.spans_s.items()},
        notes=notes,
    )


def _scores(last: StageResult) -> dict[str, float]:
    """The score of the best epoch and its parts, to four digits."""
    name = f"{last.measure}_mean" if last.measure == "pearson" else last.measure
    parts = {key: value for key, value in last.best.items() if key.startswith("pearson_")}
    scores = {name: last.best["score"], **parts}
    return {f"valid_{name}": round(value, 4) for name, value in scores.items()}
