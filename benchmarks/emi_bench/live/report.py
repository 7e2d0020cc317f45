"""What one run of `emi bench live` found, as plain types for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from emi_bench.live.decode import Response
    from emi_bench.live.edges import Edge
    from emi_bench.machine import Machine
    from emi_bench.stats import Distribution
    from emi_bench.usage import UsageSample
    from emi_models.vocabulary import Modality

__all__ = ["SCHEMA", "FlashBeep", "LiveReport"]

SCHEMA: Final = 1  # raised when a field changes its meaning or goes


@dataclass(frozen=True, slots=True)
class FlashBeep:
    """Light and sound in a code, and how long they took to show."""

    light: Response
    sound: Response


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """One run of the engine in `live` mode. Times in milliseconds, but for names that say otherwise."""

    machine: Machine
    load_before: float  # of the machine, in processes that want a core
    source: str  # a file's name, `camera 0`, or `flash and beep`
    parts: list[str]  # what ran
    hop_s: float
    window_s: float
    transport: str  # of the bus
    seconds: float  # capture time of the last estimate
    warm_up_s: float  # left out of every latency
    estimates: int
    face_frames_per_s: float
    stations: dict[Modality, dict[str, Distribution]]  # over packets, up to the first estimate with each
    per_estimate: dict[str, Distribution]  # the last stations, over estimates
    capture_to_estimate_ms: Distribution | None  # how old what an estimate was made from is at best
    engine_ms: Distribution | None  # the network alone, a part of the station `fusion`
    ages_ms: dict[Modality, Distribution]  # at the window's end, of the newest face, voice and word
    edges: list[Edge]
    usage: list[UsageSample]  # once a second; models and child processes included
    peak_rss_mib: float  # pages that processes share count twice
    rss_growth_mib: float  # the second half's mean minus that of the second quarter
    cpu_cores: float  # mean cores busy while running
    flash_beep: FlashBeep | None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        plain = {"bench": "live", "schema": SCHEMA, **asdict(self)}
        if self.flash_beep is not None:
            for name in ("light", "sound"):
                plain["flash_beep"][name]["stamps_right"] = getattr(self.flash_beep, name).stamps_right
        return plain
