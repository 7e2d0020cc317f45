"""The fusion systems by name: from a checkpoint's words to a network of the right sizes."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Final, Protocol

from emi_models.errors import CheckpointError
from emi_models.inputs import FusionShapes
from emi_models.networks.taemi import Taemi, TaemiConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from emi_models.inputs import FusionInputs
    from emi_models.vocabulary import Modality

__all__ = ["SYSTEMS", "FusionConfig", "FusionNetwork", "build_network", "describe_config"]


class FusionConfig(Protocol):
    """What every system's configuration dataclass has; the rest is its own."""

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of the window that it takes."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities it was trained on; the others are always their tokens."""


class FusionNetwork(Protocol):
    """What training, engines and benchmarks ask of a system: one call, whichever it is; an `nn.Module`."""

    @property
    def config(self) -> FusionConfig:
        """The configuration it was built from."""

    def __call__(self, window: FusionInputs) -> Tensor:
        """Raw intensities, (B, 6), in the order of `EMOTIONS`."""


# Each entry: the configuration dataclass, and the `nn.Module` that is built from one.
SYSTEMS: Final[Mapping[str, tuple[type[TaemiConfig], type[Taemi]]]] = {"taemi": (TaemiConfig, Taemi)}


def describe_config(config: TaemiConfig) -> dict[str, object]:
    """A configuration as JSON can hold it, without `modalities`, which a checkpoint's header names itself."""
    described = asdict(config)
    described.pop("modalities")
    return described


def build_network(system: str, config: Mapping[str, object], modalities: tuple[Modality, ...]) -> Taemi:
    """A freshly initialised network from what `describe_config` gave.

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
        return network_type(config_type(shapes=FusionShapes(**shapes), modalities=modalities, **rest))  # type: ignore[arg-type]  # checked by both dataclasses
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the configuration of {system} is impossible: {error}") from error
