"""The fusion networks: one published system a file, and all of them by name.

`base` holds what they have in common: the contract, and the parts that they are built from. `SYSTEMS` lists
the systems by the names that checkpoints use. Importing this package loads no network: each is imported when
it is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from importlib import import_module
from typing import TYPE_CHECKING, Final

from emi_models import EMOTIONS
from emi_models.errors import CheckpointError
from emi_models.inputs import FusionShapes

if TYPE_CHECKING:
    from emi_models import Modality
    from emi_models.networks.base import FusionNetwork
    from emi_models.networks.config import NetworkConfig

__all__ = ["SYSTEMS", "build_network", "describe_config", "described_defaults"]

_NAMES: Final = {
    "taemi": "Taemi",
    "two_stage": "TwoStage",
    "dual_stage": "DualStage",
    "semantic_matters": "SemanticMatters",
}


class _Systems(Mapping[str, "tuple[type[NetworkConfig], type[FusionNetwork]]"]):
    """The configuration and the network class of each system; a system is imported when it is looked up."""

    def __getitem__(self, name: str) -> tuple[type[NetworkConfig], type[FusionNetwork]]:
        stem = _NAMES[name]
        module = import_module(f"emi_models.networks.{name}")
        return getattr(module, f"{stem}Config"), getattr(module, stem)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


SYSTEMS: Final = _Systems()


def describe_config(config: NetworkConfig) -> dict[str, object]:
    """A configuration as JSON can hold it, without `modalities`, which a checkpoint's header names itself."""
    described = asdict(config)
    described.pop("modalities")
    if described["targets"] == len(EMOTIONS):  # the usual number is not named, as before there was a choice
        described.pop("targets")
    return described


def described_defaults(
    config_type: type[NetworkConfig], described: Mapping[str, object]
) -> dict[str, object]:
    """The settings of a description that have defaults: what an earlier description does not name."""
    usual = {field.name: field.default for field in fields(config_type) if field.default is not MISSING}
    return {name: usual[name] for name in described if name in usual}


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
