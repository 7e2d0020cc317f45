"""The fusion systems by name: from a checkpoint's words to a network of the right sizes."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Final

from emi_models.errors import CheckpointError
from emi_models.inputs import FusionShapes
from emi_models.networks.base import FusionConfig, FusionNetwork
from emi_models.networks.dual_stage import DualStage, DualStageConfig
from emi_models.networks.semantic_matters import SemanticMatters, SemanticMattersConfig
from emi_models.networks.taemi import Taemi, TaemiConfig
from emi_models.networks.two_stage import TwoStage, TwoStageConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_models import Modality

__all__ = ["SYSTEMS", "FusionConfig", "FusionNetwork", "build_network", "describe_config"]

# Each entry: the configuration dataclass, and the network that is built from one.
SYSTEMS: Final[Mapping[str, tuple[type[FusionConfig], type[FusionNetwork]]]] = {
    "taemi": (TaemiConfig, Taemi),
    "two_stage": (TwoStageConfig, TwoStage),
    "dual_stage": (DualStageConfig, DualStage),
    "semantic_matters": (SemanticMattersConfig, SemanticMatters),
}


def describe_config(config: FusionConfig) -> dict[str, object]:
    """A configuration as JSON can hold it, without `modalities`, which a checkpoint's header names itself."""
    described = asdict(config)
    described.pop("modalities")
    return described


def build_network(
    system: str, config: Mapping[str, object], modalities: tuple[Modality, ...]
) -> FusionNetwork:
    """A freshly initialised network from what `describe_config` gave.

    A setting that `config` does not name has its default: what the network was before there was a choice.

    Raises:
        CheckpointError: the system is unknown, or its configuration is incomplete, foreign or impossible.
    """
    if system not in SYSTEMS:
        raise CheckpointError(f"unknown system {system!r}; this version knows {', '.join(sorted(SYSTEMS))}")
    config_type, network_type = SYSTEMS[system]
    rest = dict(config)
    shapes = rest.pop("shapes", None)
    known = {field.name for field in fields(config_type)}
    if not isinstance(shapes, dict) or (unknown := set(rest) - known):
        named = "no shapes" if not isinstance(shapes, dict) else f"unknown settings {sorted(unknown)}"
        raise CheckpointError(f"the configuration of {system} has {named}; save it again with this version")
    try:
        return network_type(config_type(shapes=FusionShapes(**shapes), modalities=modalities, **rest))  # type: ignore[call-arg]  # checked by both dataclasses
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the configuration of {system} is impossible: {error}") from error
