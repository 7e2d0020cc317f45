"""What was lost on each edge of the diagram, from the engine's own counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_live.sinks.counters import losses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emi_live.health import HealthSnapshot

__all__ = ["EDGES", "Edge", "edges_of"]

# In the order of the flow. A counter that is new to this table is shown under `ELSEWHERE`, not left out.
EDGES: Final[Mapping[str, tuple[str, ...]]] = {
    "camera, file → ring": (
        "file.late",
        "file.damaged",
        "video.out_of_order",
        "camera.buffered",
        "camera.damaged",
        "camera.lost",
    ),
    "microphone → ring": (
        "microphone.dropped",
        "microphone.overflows",
        "microphone.lost",
        "audio.not_finite",
    ),
    "camera → face": ("camera.overwritten", "face.skipped"),
    "ring → audio": ("audio.lost_samples", "audio.gaps"),
    "ring → speech": ("speech.lost_samples", "speech.gaps"),
    "speech → text": ("bus.transcript.dropped", "bus.transcript.refused"),
    "stages → window": (
        *(f"bus.{topic}.{what}" for topic in ("vision", "audio", "text") for what in ("dropped", "refused")),
        "window.discarded",
    ),
    "window → fusion": ("fusion.missed_hops",),
    "fusion → sinks": ("bus.estimate.dropped", "bus.estimate.refused"),
}
ELSEWHERE: Final = "elsewhere"


@dataclass(frozen=True, slots=True)
class Edge:
    """One arrow of the diagram and what was lost on it, by counter, without zeros."""

    name: str
    lost: Mapping[str, int]


def edges_of(health: HealthSnapshot) -> list[Edge]:
    """Every edge, those without a loss too; in the order of the flow."""
    counted = {loss.name: loss.count for loss in losses(health)}
    edges = [
        Edge(name, {counter: counted.pop(counter) for counter in counters if counter in counted})
        for name, counters in EDGES.items()
    ]
    return edges + ([Edge(ELSEWHERE, counted)] if counted else [])
