"""What to tell after a run: how many estimates, how fast, how late, what was lost, and the peaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import HealthSnapshot
from emi_live.messages import Estimate
from emi_live.sinks.view import AMBER, EMOTION_COLOURS
from emi_live.sinks.viewstate import losses
from emi_models import EMOTIONS

__all__ = ["Summary"]

MAX_SAMPLES: Final = 100_000  # latencies kept: over five hours at the default hop; then the oldest half goes


class Summary:
    """Gathers the figures of one run; used by one thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self.count = 0
        self._first: tuple[int, float] | None = None  # arrival and capture time
        self._last: tuple[int, float] = (0, 0.0)
        self._peaks = [(0.0, 0.0)] * len(EMOTIONS)  # intensity, capture time
        self._sums = [0.0] * len(EMOTIONS)
        self._latencies: dict[str, list[float]] = {"capture to estimate": [], "window": [], "fusion": []}

    def add(self, estimate: Estimate) -> None:
        """Take in one estimate."""
        self.count += 1
        self._last = (self._clock.now_ns(), estimate.t_s)
        self._first = self._first or self._last
        for index, value in enumerate(estimate.intensities):
            self._sums[index] += value
            if value > self._peaks[index][0]:
                self._peaks[index] = (value, estimate.t_s)
        latency = estimate.latency
        for values, value_ms in zip(
            self._latencies.values(),
            (latency.capture_to_estimate, latency.window, latency.fusion),
            strict=True,
        ):
            if value_ms is not None:
                values.append(value_ms)
            if len(values) > MAX_SAMPLES:
                del values[: MAX_SAMPLES // 2]

    def render(self, health: HealthSnapshot) -> RenderableType:
        """The figures as a few lines and a small table."""
        if self.count == 0:
            return Text("no estimates", style="bold")
        lines: list[RenderableType] = [self._rate(), self._latency()]
        if words := health.counters.get("speech.words", 0):
            erasure = health.counters.get("speech.erased", 0) / words
            lines.append(Text(f"{words} words; {erasure:.2f} shown and taken back for each (erasure)"))
        if "drift" in health.parts and health.counters.get("drift.checks"):
            lines.append(Text(f"drift: {health.parts['drift'].detail}"))
        lost = losses(health)
        faults = ", ".join(loss.words for loss in lost if loss.fault)
        lines.append(Text(f"lost: {faults}", style=AMBER) if faults else Text("nothing lost"))
        if skipped := ", ".join(loss.words for loss in lost if not loss.fault):
            lines.append(Text(f"as it should be: {skipped}", style="dim"))
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        table.add_column("")
        for heading in ("mean", "peak", "at"):
            table.add_column(heading, justify="right")
        for index, name in enumerate(EMOTIONS):
            peak, at_s = self._peaks[index]
            mean = self._sums[index] / self.count
            table.add_row(
                Text(name.replace("_", " "), style=EMOTION_COLOURS[name]),
                f"{mean:.2f}",
                f"{peak:.2f}",
                f"{at_s:.1f} s" if peak else "",
            )
        return Group(*lines, table)

    def _rate(self) -> Text:
        text = Text().append(f"{self.count} estimates", style="bold")
        if self._first is not None and self.count > 1:
            wall_s = (self._last[0] - self._first[0]) / NS_PER_S
            media_s = self._last[1]
            if wall_s > 0:
                text.append(f", {(self.count - 1) / wall_s:.1f} per second")
                text.append(f", {media_s:.1f} s of media in {wall_s:.1f} s")
        return text

    def _latency(self) -> Text:
        parts = [
            f"{name} p50 {percentile(values, 0.5):.1f}, p95 {percentile(values, 0.95):.1f} ms"
            for name, values in self._latencies.items()
            if values
        ]
        return Text("; ".join(parts))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
