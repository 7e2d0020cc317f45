"""What `emi bench drift` found, as plain types for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from emi_bench.machine import Machine
    from emi_bench.stats import Distribution
    from emi_models.encoders.drift import FrameDrift, IntensityDrift
    from emi_models.encoders.wav2vec_stream import Strategy

__all__ = ["SCHEMA", "Cell", "Clip", "DriftReport", "Setting", "WholePass"]

SCHEMA: Final = 1  # raised when a field changes its meaning or goes
FRAME_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to stream."""

    strategy: Strategy
    hop_s: float
    left_s: float
    hold_s: float

    @property
    def frames(self) -> tuple[int, int, int]:
        """New, left and held-back frames of a step."""
        new, left, edge = (round(seconds / FRAME_S) for seconds in (self.hop_s, self.left_s, self.hold_s))
        return new, left, edge

    @property
    def latency_s(self) -> float:
        """How old the oldest frame of a step is when it comes out, if computing took no time."""
        return self.hop_s + self.hold_s


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip by name, and how long it is."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All clips, streamed in one way."""

    setting: Setting
    latency_s: float
    features: FrameDrift
    intensities: IntensityDrift
    gflop_per_s: float  # of sound
    steps_ms: Distribution | None  # time of each step
    real_time_factor: float  # share of the time that it works; above 1 it cannot keep up


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePass:
    """One pass over 12 s, which `--audio-context full` does at every hop."""

    gflop: float
    ms: Distribution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One run of the benchmark."""

    machine: Machine
    load_before: float
    torch_threads: int
    model: str
    random_model: bool
    normalises: bool
    network: str
    random_network: bool
    clips: list[Clip]
    whole: WholePass
    cells: list[Cell]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {"bench": "drift", "schema": SCHEMA, **asdict(self)}
