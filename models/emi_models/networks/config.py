"""What every network's configuration has, and the checks that they share. It loads no PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, get_args

from emi_models import MODALITIES

if TYPE_CHECKING:
    from emi_models import Modality
    from emi_models.inputs import FusionShapes

__all__ = [
    "TASKS",
    "NetworkConfig",
    "Task",
    "check_choice",
    "check_modalities",
    "check_shares",
    "check_sizes",
]

# emi: intensities, of the six emotions or of labels of one's own. bah: ambivalence and hesitancy, one logit.
Task = Literal["emi", "bah"]
TASKS: Final[tuple[Task, ...]] = get_args(Task)


class NetworkConfig(Protocol):
    """What every system's configuration has, a frozen dataclass of values that JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def shapes(self) -> FusionShapes:
        """The sizes of the window that it takes."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities it is trained on; the others are always absent, even if a window has them."""

    @property
    def task(self) -> Task:
        """What it answers."""

    @property
    def outputs(self) -> int:
        """How many values a prediction has: one for each target, or one logit."""


def check_sizes(config: NetworkConfig, *names: str, least: int = 1, most: int = 65536) -> None:
    """Return if each of these settings is a whole number from `least` to `most`; else raise ValueError."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")


def check_shares(config: NetworkConfig, *names: str) -> None:
    """Return if each of these settings lies in [0, 1); else raise ValueError."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            raise ValueError(f"{name} is {value!r}; it must lie in [0, 1)")


def check_choice(config: NetworkConfig, name: str, choices: tuple[str, ...]) -> None:
    """Return if this setting is one of the choices; else raise ValueError."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def check_modalities(config: NetworkConfig) -> None:
    """Return if at least one modality is named, and none that is unknown; else raise ValueError."""
    if not config.modalities or not set(config.modalities) <= set(MODALITIES):
        raise ValueError(
            f"modalities are {config.modalities!r}; name at least one of {', '.join(MODALITIES)}"
        )
