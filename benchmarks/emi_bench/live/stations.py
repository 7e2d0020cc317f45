"""The stations that evidence passes from its capture to a sink, and what was lost between them.

::

    capture ── arrived ── published ── started ── published ── received
       └ capture ┴ stage(s) ┴ bus ┴ window, fusion ┴ sink ┘

- capture: from the sensor until the engine has it; for sound, until its block is full;
- stage: until its packet is published, with the wait in the ring: `face`, `audio`, or `speech` and `text`;
- bus: until a window takes it: the hop over the bus, and above all the wait for the next estimate;
- window: assembling it;
- fusion: the engine, and publishing the estimate;
- sink: until a sink has it.

Every packet passes them once, on its way into the first estimate that contains it; they add up to `total`. A
delay in one part shows at its own station only. Pure functions: stamps in, times out.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_bench.live.report import TOTAL, EdgeLosses
from emi_bench.stats import Distribution
from emi_live.clock import NS_PER_MS
from emi_live.sinks.viewstate import losses
from emi_models import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from emi_live import Estimate
    from emi_live.health import HealthSnapshot
    from emi_live.messages import Trace
    from emi_models import Modality

__all__ = [
    "EDGES",
    "ReceivedEstimate",
    "after_warm_up",
    "distributions",
    "estimate_passage",
    "losses_by_edge",
    "passages",
    "stations_of",
]

STAGES: Final[Mapping[Modality, str]] = {"vision": "face", "audio": "audio", "text": "text"}
# In the order of the flow. A counter that is not in this table is shown under `ELSEWHERE`.
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
class ReceivedEstimate:
    """An estimate, and when a sink received it."""

    estimate: Estimate
    received_ns: int


def after_warm_up(seen: Sequence[ReceivedEstimate], warm_up_s: float) -> list[ReceivedEstimate]:
    """The estimates whose age counts: after the first seconds, and before the media ended.

    The media of a modality have ended if its evidence never changes again.
    """
    last = len(seen)
    for modality in ("vision", "audio"):
        stamps = [
            one.estimate.traces[modality].t_ns if modality in one.estimate.traces else 0 for one in seen
        ]
        if stamps and stamps[-1]:
            last = min(last, stamps.index(stamps[-1]) + 1)
    return [one for one in seen[:last] if one.estimate.t_s > warm_up_s]


def passages(
    seen: Sequence[ReceivedEstimate], modality: Modality, packets: Sequence[Trace]
) -> Iterator[tuple[ReceivedEstimate, dict[str, float]]]:
    """For each packet, the first estimate with it, and the milliseconds at each station and in `TOTAL`.

    Packets that no estimate used, or whose arrival is unknown, are left out.

    Args:
        seen: estimates, in order.
        modality: of the packets.
        packets: what its stage published, in order.
    """
    taking = [one for one in seen if modality in one.estimate.traces]
    newest = [one.estimate.traces[modality].t_ns for one in taking]  # never goes back
    for packet in packets:
        index = bisect_left(newest, packet.t_ns)
        while index < len(taking) and taking[index].estimate.started_ns < packet.published_ns:
            index += 1  # a packet before this one had the same capture time, as at a gap
        if index == len(taking) or not packet.arrived_ns:
            continue
        one = taking[index]
        times = {"capture": _ms(packet.t_ns, packet.arrived_ns)}
        if modality == "text":
            times["speech"] = _ms(packet.arrived_ns, packet.transcribed_ns)
            times["text"] = _ms(packet.transcribed_ns, packet.published_ns)
        else:
            times[STAGES[modality]] = _ms(packet.arrived_ns, packet.published_ns)
        times["bus"] = _ms(packet.published_ns, one.estimate.started_ns)
        times |= estimate_passage(one)
        times[TOTAL] = _ms(packet.t_ns, one.received_ns)
        yield one, times


def estimate_passage(one: ReceivedEstimate) -> dict[str, float]:
    """Milliseconds at the stations of an estimate: window, fusion, sink."""
    estimate = one.estimate
    return {
        "window": estimate.latency.window,
        "fusion": _ms(estimate.started_ns, estimate.published_ns) - estimate.latency.window,
        "sink": _ms(estimate.published_ns, one.received_ns),
    }


def stations_of(
    seen: Sequence[ReceivedEstimate], packets: Mapping[Modality, Sequence[Trace]], warm_up_s: float
) -> dict[Modality, dict[str, Distribution]]:
    """The distribution over packets at each station, for each modality that has any after the warm-up."""
    found: dict[Modality, dict[str, Distribution]] = {}
    for modality in MODALITIES:
        ways = passages(seen, modality, packets.get(modality, ()))
        rows = [times for one, times in ways if one.estimate.t_s > warm_up_s]
        if rows:
            found[modality] = distributions(rows)
    return found


def distributions(rows: Sequence[Mapping[str, float]]) -> dict[str, Distribution]:
    """The distribution of each column; all rows have the same names."""
    columns = {name: Distribution.of([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return {name: values for name, values in columns.items() if values is not None}


def _ms(since_ns: int, until_ns: int) -> float:
    return (until_ns - since_ns) / NS_PER_MS


def losses_by_edge(health: HealthSnapshot) -> list[EdgeLosses]:
    """Every edge with its losses, in the order of the flow; edges without a loss too."""
    counted = {loss.name: loss.count for loss in losses(health)}
    edges = [
        EdgeLosses(name, {counter: counted.pop(counter) for counter in counters if counter in counted})
        for name, counters in EDGES.items()
    ]
    return edges + ([EdgeLosses(ELSEWHERE, counted)] if counted else [])
