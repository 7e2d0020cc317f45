"""The stations that evidence passes on its way into an estimate and out to a sink.

::

    capture ── arrived ── published ── started ── published ── received
       └ capture ┴ stage(s) ┴ bus ┴ window, fusion ┴ sink ┘

- capture: from the sensor until the engine has it; for sound, until the block that it is part of is full;
- stage: until its packet is published, waiting in the ring included: `face`, `audio`, or `speech` and `text`;
- bus: until a window takes it: the hop over the bus, and above all the wait until an estimate is due;
- window: assembling it;
- fusion: the engine, and putting the estimate on the bus;
- sink: until a sink has it.

Every packet passes them once, on its way into the first estimate that it is part of; they add up to `total`.
A part that stalls is seen at its own station only. Pure: stamps in, times out.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emi_bench.stats import Distribution
from emi_live.clock import NS_PER_MS
from emi_models.vocabulary import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from emi_live import Estimate
    from emi_live.messages import Trace
    from emi_models.vocabulary import Modality

__all__ = ["TOTAL", "Seen", "distributions", "estimate_passage", "passages", "settled", "stations_of"]

TOTAL: Final = "total"
STAGES: Final[Mapping[Modality, str]] = {"vision": "face", "audio": "audio", "text": "text"}


@dataclass(frozen=True, slots=True)
class Seen:
    """An estimate, and when a sink had it in its hands."""

    estimate: Estimate
    received_ns: int


def settled(seen: Sequence[Seen], warm_up_s: float) -> list[Seen]:
    """Estimates that tell how fresh they are: not of the first seconds, nor made after the media had ended.

    The media of a modality have ended when its evidence never changes again.
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
    seen: Sequence[Seen], modality: Modality, packets: Sequence[Trace]
) -> Iterator[tuple[Seen, dict[str, float]]]:
    """For each packet, the first estimate with it, and milliseconds at each station of the way, and `TOTAL`.

    Packets that no estimate took, or whose arrival is not known, are left out.

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


def estimate_passage(one: Seen) -> dict[str, float]:
    """Milliseconds at the stations that are an estimate's own."""
    estimate = one.estimate
    return {
        "window": estimate.latency.window,
        "fusion": _ms(estimate.started_ns, estimate.published_ns) - estimate.latency.window,
        "sink": _ms(estimate.published_ns, one.received_ns),
    }


def stations_of(
    seen: Sequence[Seen], packets: Mapping[Modality, Sequence[Trace]], warm_up_s: float
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
    """Of each name, over rows that all have the same names."""
    columns = {name: Distribution.of([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return {name: values for name, values in columns.items() if values is not None}


def _ms(since_ns: int, until_ns: int) -> float:
    return (until_ns - since_ns) / NS_PER_MS
