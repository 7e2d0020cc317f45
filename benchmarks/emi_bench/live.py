"""How fresh are the estimates? The whole engine at real pace, from capture to estimate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from emi_bench.machine import Machine
from emi_bench.stats import Distribution
from emi_bench.usage import Usage
from emi_live import Estimate, LiveConfig, LiveEngine

__all__ = ["LiveReport", "measure_live"]

WARM_UP_S = 2.0  # estimates of the first seconds are left out of the latencies: caches and threads settle
DROP_WORDS = ("overwritten", "lost", "dropped", "discarded", "missed", "overflow", "refused", "out_of_order")


@dataclass(frozen=True, slots=True)
class LiveReport:
    """One run of the engine in `live` mode."""

    machine: Machine
    parts: list[str]  # what ran
    seconds: float  # capture time of the last estimate
    estimates: int
    face_frames_per_s: float
    capture_to_estimate_ms: Distribution | None
    vision_age_ms: Distribution | None
    audio_age_ms: Distribution | None
    window_ms: Distribution | None
    fusion_ms: Distribution | None
    drops: dict[str, int]
    peak_rss_mib: float  # models and child processes included; pages that they share count twice
    rss_mib: list[float]  # at every estimate, in order
    rss_growth_mib: float  # second half's mean minus that of the second quarter
    cpu_cores: float  # mean cores busy while running

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def measure_live(config: LiveConfig) -> LiveReport:
    """Run the engine over its source at real pace and report; a file is played, not raced through.

    Raises:
        EmiError: as `LiveEngine` raises.
    """
    torch.set_num_threads(config.fusion.threads)  # as `emi-live` does
    usage = Usage()
    estimates: list[Estimate] = []
    memory: list[float] = []
    live_config = config.model_copy(update={"mode": "live"})
    with LiveEngine(live_config) as live:
        busy_before_s = usage.cpu_s()
        for estimate in live.estimates():
            estimates.append(estimate)
            memory.append(usage.rss_mib())
        busy_s = usage.cpu_s() - busy_before_s
        counters = live.health.snapshot().counters
        parts = live.announcements
    seconds = estimates[-1].t_s if estimates else 0.0
    settled = [e for e in estimates if e.t_s > WARM_UP_S] or estimates
    reached = [e.latency.capture_to_estimate for e in settled if e.latency.capture_to_estimate is not None]
    quarter, half = len(memory) // 4, len(memory) // 2
    return LiveReport(
        machine=Machine(),
        parts=parts,
        seconds=seconds,
        estimates=len(estimates),
        face_frames_per_s=counters.get("face.frames", 0) / seconds if seconds else 0.0,
        capture_to_estimate_ms=Distribution.of(reached),
        vision_age_ms=Distribution.of(_ages(settled, "vision")),
        audio_age_ms=Distribution.of(_ages(settled, "audio")),
        window_ms=Distribution.of([e.latency.window for e in settled]),
        fusion_ms=Distribution.of([e.latency.fusion for e in settled]),
        drops={name: n for name, n in sorted(counters.items()) if n and any(w in name for w in DROP_WORDS)},
        peak_rss_mib=max(memory, default=0.0),
        rss_mib=memory,
        rss_growth_mib=_mean(memory[half:]) - _mean(memory[quarter:half]),
        cpu_cores=busy_s / seconds if seconds else 0.0,
    )


def _ages(estimates: list[Estimate], modality: str) -> list[float]:
    reports = [report for e in estimates for name, report in e.modalities.items() if name == modality]
    return [report.age_ms for report in reports if report.state == "live" and report.age_ms is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
