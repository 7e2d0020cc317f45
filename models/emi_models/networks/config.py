"""What every network's configuration has, and that of TAEMI with the work of a window. It loads no PyTorch.

`taemi_work` counts floating-point operations, parameters and bytes; they follow from the configuration alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Protocol, get_args

from emi_models import EMOTIONS, MODALITIES, Modality
from emi_models.inputs import FusionShapes
from emi_models.targets import MAX_TARGETS

__all__ = [
    "TASKS",
    "NetworkConfig",
    "TaemiConfig",
    "Task",
    "Work",
    "check_choice",
    "check_modalities",
    "check_shares",
    "check_sizes",
    "fused_width",
    "taemi_parameters",
    "taemi_work",
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


Fusion = Literal["anchored", "self", "none"]
Absence = Literal["token", "zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaemiConfig:
    """Everything that decides TAEMI's parameters and their use; the defaults are the paper's.

    `anchor` (Table 4) is the modality whose own representation queries the two others. `attention` (Table 3):
    `anchored`; `self`, each sequence attends to itself and is averaged; `none`, projections are averaged.
    `missing` is what stands in for an absent modality. `modality_dropout` 0 is no modality dropout.

    `attention="none"` is not quite the paper's "simple feature concat", which flattens all frames: that head
    would have half a million inputs at the paper's sizes.

    Beyond the paper, and off: `gated`, each intensity times a gate in (0, 1), since most ratings are 0;
    `divergence`, how far the two others' vectors are apart, as a further input of the head.
    """

    task: ClassVar[Task] = "emi"

    shapes: FusionShapes
    modalities: tuple[Modality, ...] = MODALITIES  # those trained; the others are always their tokens
    targets: int = len(EMOTIONS)  # how many labels it estimates
    d_model: int = 512
    heads: int = 4
    mlp_hidden: int = 512
    dropout: float = 0.1
    modality_dropout: float = 0.1  # chance that training replaces a present modality by its token
    anchor: Modality = "text"
    attention: Fusion = "anchored"
    missing: Absence = "token"
    gated: bool = False
    divergence: bool = False

    @property
    def head_width(self) -> int:
        """Values of the head's last layer: intensities, and their gates if there are any."""
        return self.outputs * (2 if self.gated else 1)

    def __post_init__(self) -> None:
        check_sizes(self, "d_model", "heads", "mlp_hidden")
        check_sizes(self, "targets", most=MAX_TARGETS)
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        check_shares(self, "dropout", "modality_dropout")
        check_modalities(self)
        check_choice(self, "anchor", MODALITIES)
        check_choice(self, "attention", get_args(Fusion))
        check_choice(self, "missing", get_args(Absence))
        if self.attention != "anchored" and self.anchor != "text":
            raise ValueError(
                f"anchor {self.anchor!r} has no use with attention {self.attention!r}; leave it out"
            )

    @property
    def outputs(self) -> int:
        """How many values a prediction has."""
        return self.targets


FLOAT32_BYTES = 4  # of windows and intensities, whatever the precision in between


@dataclass(frozen=True, slots=True)
class Work:
    """One pass over a batch of whole windows, padding included, as the network is written.

    `flops` are those of matrix products, two a multiply-add, as PyTorch's `FlopCounterMode` counts. `bytes`
    is the least traffic: each weight and input read once, each output written once, all between in caches.
    """

    flops: int
    bytes: int


def taemi_work(config: TaemiConfig, batch: int = 1, weight_bytes: int = 4) -> Work:
    """The work of `batch` windows of `config.shapes`, with weights of so many bytes each."""
    shapes = config.shapes
    window = (
        FLOAT32_BYTES * (shapes.vision_frames * shapes.vision_dim + shapes.audio_frames * shapes.audio_dim)
        + FLOAT32_BYTES * (shapes.text_dim + config.targets)
        + shapes.vision_frames
        + shapes.audio_frames
        + 3  # masks and flags, a byte each
    )
    return Work(batch * _flops(config), taemi_parameters(config) * weight_bytes + batch * window)


def taemi_parameters(config: TaemiConfig) -> int:
    """How many learned numbers the network of this configuration has."""
    d_model, shapes = config.d_model, config.shapes
    dims: dict[Modality, int] = {
        "vision": shapes.vision_dim,
        "audio": shapes.audio_dim,
        "text": shapes.text_dim,
    }
    square = d_model * d_model + d_model  # a linear layer of the model's width
    total = sum(dims.values()) if config.missing == "token" else 0
    for name in ("vision", "audio"):
        total += dims[name] * d_model + d_model
        if config.attention != "none":
            total += 2 * d_model + 4 * square
        if config.attention == "anchored" and config.anchor != name:
            total += 4 * square
    if config.attention != "self":
        total += dims["text"] * d_model + d_model
    if config.anchor != "text":
        total += 2 * square
    return total + (fused_width(config) + 1) * config.mlp_hidden + (config.mlp_hidden + 1) * config.head_width


def _flops(config: TaemiConfig) -> int:
    """Of one window."""
    shapes, d_model = config.shapes, config.d_model
    total = 2 * (fused_width(config) + config.head_width) * config.mlp_hidden
    if config.attention != "self":
        total += 2 * shapes.text_dim * d_model
    if config.anchor != "text":
        total += 4 * d_model * d_model
    frames: tuple[tuple[Modality, int, int], ...] = (
        ("vision", shapes.vision_frames, shapes.vision_dim),
        ("audio", shapes.audio_frames, shapes.audio_dim),
    )
    for name, length, dim in frames:
        t = length if name in config.modalities else 1  # one frame, its token
        total += 2 * t * dim * d_model
        if config.attention != "none":  # query, key, value, out; scores and what they mix
            total += 8 * t * d_model * d_model + 4 * t * t * d_model
        if config.attention == "anchored" and config.anchor != name:  # one query over t keys
            total += 4 * (t + 1) * d_model * d_model + 4 * t * d_model
    return total


def fused_width(config: TaemiConfig) -> int:
    """The width of what goes into the head."""
    unprojected = config.anchor == "text" and config.attention != "none"
    projected = 3 if config.divergence else 2
    return (config.shapes.text_dim if unprojected else config.d_model) + projected * config.d_model
