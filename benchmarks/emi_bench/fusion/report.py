"""What `emi bench fusion` found, as plain types for machines; docs/benchmarks/fusion.md has the fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from emi_bench.fusion.rates import Rates
    from emi_bench.machine import Machine
    from emi_bench.stats import Distribution

__all__ = ["SCHEMA", "CaseKey", "FusionReport", "Parity", "Result", "Studied", "Unavailable"]

SCHEMA: Final = 1  # raised when a field changes its meaning or goes

# `contributions` is a stream of which each hop is answered four times: whole, and without each modality.
Task = Literal["windows", "stream", "contributions"]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An engine that could not be measured, and why."""

    network: str
    engine: str
    batch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Studied:
    """A network, its windows, and the work of one of them; None where it is no TAEMI and nobody counted."""

    name: str
    what: str
    sha256: str  # of the checkpoint
    shapes: dict[str, int]
    vision_frames: int  # present, of shapes.vision_frames
    audio_frames: int
    parameters: int
    flops: int | None
    bytes: int | None  # in fp32


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an engine is from PyTorch in fp32 on the CPU: in units of the largest intensity, or of 1."""

    network: str
    engine: str
    task: Task
    windows: int
    worst: float
    tolerance: float  # of its precision

    @property
    def kept(self) -> bool:
        """Whether it may be called the same function."""
        return self.worst <= self.tolerance


@dataclass(frozen=True, slots=True)
class CaseKey:
    """What engines did in turns."""

    network: str
    task: Task
    batch: int
    gap_s: float  # 0: back to back

    def __str__(self) -> str:
        what = {
            "windows": f"batch {self.batch}",
            "stream": "hop by hop",
            "contributions": "hop by hop with contributions",
        }[self.task]
        pace = f"after {1e3 * self.gap_s:.0f} ms idle" if self.gap_s else "back to back"
        return f"{self.network}, {what}, {pace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One engine at one case. Milliseconds a call; a call is one batch, or one hop."""

    case: CaseKey
    engine: str
    device: str
    precision: str
    n_asked: int  # wall_ms.n are fewer where the budget was short
    wall_ms: Distribution  # as Python sees it, from windows on the host to intensities there
    device_ms: Distribution | None  # the GPU's own time, windows there already
    windows_per_s: float  # batch / mean of wall_ms
    x_eager: float | None  # median of wall_ms / that of eager fp32 on the same device in the same turns
    x_eager_device: float | None  # the same of device_ms
    floor_ms: float | None
    x_floor: float | None  # median of device_ms, or else of wall_ms, / floor_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionReport:
    """One run."""

    machine: Machine
    load_before: float | None  # processes that wanted a core in the minute before
    torch_threads: int
    numpy_threads: int | None  # None: as many as numpy's library takes
    settings: dict[str, Any]
    seconds: float
    networks: list[Studied]
    rates: list[Rates]
    unavailable: list[Unavailable]
    parity: list[Parity]
    results: list[Result]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {"bench": "fusion", "schema": SCHEMA, **asdict(self)}
